"""Configuration fields that carry their own help and limits.

A configuration is a frozen dataclass whose fields are made by `option`; the checks of its constructor,
the command line and the documentation all come from that one description.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any

SWITCH = ("auto", "yes", "no")
"""Choices of an option that is written ``--name`` or ``--no-name``, and is auto where neither is said."""

_LONGEST = 60
"""Characters of a value in a message."""


class ConfigError(ValueError):
    """A configuration value that is not allowed; the message names it and what is."""


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    identity: bool = True,
    repeated: bool = False,
    shown: str | None = None,
) -> Any:
    """A dataclass field with its help text and limits.

    Args:
        default: its value where nothing is said; its type is the field's type.
        help: one line for people.
        minimum: least allowed number.
        maximum: greatest allowed number.
        choices: allowed strings.
        identity: whether a run with another value is another run (False for how it is carried out).
        repeated: of a tuple, whether the command line takes the option several times, and adds up.
        shown: how people read the default, where it is not as it is written.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "identity": identity,
        "repeated": repeated,
        "shown": shown,
    }
    return field(default=default, metadata=metadata)


def check(config: Any) -> None:
    """Raise `ConfigError` for the first field of a configuration with a value that is not allowed."""
    for item in fields(config):
        _check_value(item, getattr(config, item.name))


def option_name(name: str) -> str:
    """The command line's name of a field."""
    return "--" + name.replace("_", "-")


def _check_value(item: Field[Any], value: Any) -> None:
    wanted: type = type(item.default) if item.default is not MISSING else object
    accepted: Any = (int, float) if wanted is float else wanted
    if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{item.name} is {_shown(value)}, allowed is a value of type {wanted.__name__}")
    limits = item.metadata
    if limits["choices"] is not None and value not in limits["choices"]:
        raise ConfigError(f"{item.name} is {_shown(value)}, allowed are {' '.join(limits['choices'])}")
    low, high = limits["minimum"], limits["maximum"]
    if low is None and high is None:
        return
    too_low = low is not None and value < low
    too_high = high is not None and value > high
    # NaN is beyond every number, and so is a whole number that no float can hold.
    endless = wanted is float and not abs(value) <= sys.float_info.max
    if too_low or too_high or endless:
        raise ConfigError(f"{item.name} is {_shown(value)}, allowed is {_range(low, high)}")


def _shown(value: Any) -> str:
    """A value for a message, cut where it is too long to be read."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"{low} or more"
    return f"{low} to {high}"
