"""A device's file as a configuration names it: where it lies, and when it was read, what it says.

Once a configuration is settled it is ``device.json#0123456789abcdef``: the digits are those of the table, so
that a search is never continued by another one.
"""

from __future__ import annotations

import re
from pathlib import Path

from pnas_fast.cli.options import ConfigError
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.device import DeviceError, DeviceFile, read_device

_SETTLED = re.compile(r"(.+)#([0-9a-f]{16})", re.DOTALL)


def settled(text: str) -> str:
    """The text with what the file says.

    Raises:
        ConfigError: it cannot be read, is something else, or says something else than the text.
    """
    path, content = _parts(text)
    found = _read(path, None).digest[:16]
    if content and found != content:
        raise ConfigError(f"device file {path}: says something else than when this run began with it")
    return f"{path}#{found}"


def content_of(text: str) -> str:
    """What a settled text says of the content; empty where it says nothing."""
    return _parts(text)[1]


def device_of(text: str, deployment: Deployment) -> DeviceFile:
    """What the file says of a network to be deployed.

    Raises:
        ConfigError: as `settled`, or it is about another network.
    """
    return _read(_parts(settled(text))[0], deployment)


def _parts(text: str) -> tuple[str, str]:
    match = _SETTLED.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")


def _read(path: str, deployment: Deployment | None) -> DeviceFile:
    try:
        return read_device(Path(path), deployment)
    except DeviceError as error:
        raise ConfigError(f"device file {error}") from error
