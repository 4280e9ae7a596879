"""What the configurations of runs have in common: settled for a machine, written, read, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import torch

from pnas_fast.cli.options import ConfigError, option, option_name
from pnas_fast.engine import TrainingSettings, resolve_precision
from pnas_fast.engine.settings import AUGMENTATION, HOW, LATER
from pnas_fast.files import write_text
from pnas_fast.kernels import BackendError, resolve_backend
from pnas_fast.runs.disk import writing

_JSON = str | int | float | bool | list[str] | None


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingSettings):
    """A run's whole configuration: one flat, frozen, checked value.

    Raises:
        ConfigError: a value outside its limits.
    """

    KIND: ClassVar[str]
    """What the run is, for messages."""

    SINCE: ClassVar[tuple[str, ...]] = LATER
    """Fields that the first runs of the kind did not have; without them they have their defaults."""

    seed: int = option(0, "of everything random", minimum=0, maximum=2**31 - 1)

    def resolved(self) -> Self:
        """This configuration with ``device``, ``backend`` and ``precision`` settled for this machine.

        Raises:
            ConfigError: a device this machine lacks, or a backend or precision that does not serve it.
        """
        cuda = torch.cuda.is_available()
        if self.device == "cuda" and not cuda:
            raise ConfigError("device is cuda, allowed is cpu: this machine has no CUDA GPU that torch sees")
        return self._on(("cuda" if cuda else "cpu") if self.device == "auto" else self.device)

    def _on(self, device: str) -> Self:
        """With ``backend`` and ``precision`` settled for a device, which another machine may have.

        There a precision that is left open is settled, for it is by the card.
        """
        try:
            backend = resolve_backend(self.backend, device)
        except BackendError as error:
            raise ConfigError(str(error)) from error
        precision = self.precision
        if precision != "auto" or device == "cpu" or torch.cuda.is_available():
            precision = resolve_precision(precision, device, backend, self.optimizer)
        return replace(self, device=device, backend=backend, precision=precision)

    def values(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def save(self, path: Path) -> None:
        """Write the configuration as JSON.

        Raises:
            DiskError: it cannot be written.
        """
        with writing(path):
            write_text(path, json.dumps(self.values(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a configuration that `save` wrote.

        Raises:
            ConfigError: the file is not one.
        """
        values = read_values(path)
        try:
            return cls.from_values(values)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ConfigError(f"{path}: not the configuration of a {cls.KIND} ({error})") from error

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of `values()`."""
        return cls(**values)

    def identity(self) -> dict[str, Any]:
        """The fields that make a run what it is.

        Without those that say how it is carried out, which may change last bits, and without where its data
        lie: data are known by their content.
        """
        own = [item.name for item in fields(self) if item.metadata["identity"]]
        return {name: getattr(self, name) for name in own if name not in HOW}

    def digest(self, data: str) -> str:
        """Eight letters that differ between runs; ``data`` is the identity of the data.

        Fields of `SINCE` count where they are not their defaults, so that older runs have their letters.
        """
        new = {item.name: item.default for item in fields(self) if item.name in self.SINCE}
        kept = {n: value for n, value in self.identity().items() if n not in new or value != new[n]}
        return short_digest(kept, data)

    def difference(self, other: Self) -> list[str]:
        """What another configuration changes about the run, as ``--name mine -> theirs``."""
        theirs = other.identity()
        return [
            f"{option_name(name)} {_text(mine)} -> {_text(theirs[name])}"
            for name, mine in self.identity().items()
            if mine != theirs[name]
        ]


def augmented_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What the values of one configuration change about the augmentation of another, as ``--flip yes -> no``.

    They need not change anything, since a data set may be augmented like that by itself.
    """
    defaults = {item.name: item.default for item in fields(TrainingSettings)}
    pairs = {name: [values.get(name, defaults[name]) for values in (before, now)] for name in AUGMENTATION}
    return [f"{option_name(name)} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]


def short_digest(identity: Mapping[str, Any], data: str) -> str:
    """Eight letters of a run's identity and that of its data."""
    text = json.dumps([identity, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_values(path: Path) -> dict[str, Any]:
    """The JSON values of a configuration's file, not yet checked one by one.

    Raises:
        ConfigError: it cannot be read, or is no JSON object of numbers, texts and lists of texts.
    """
    try:
        # By Python's reader, since names of folders need not be UTF-8.
        values = json.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(values, type=dict[str, str | int | float | bool | list[str] | None])
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"{path}: not the configuration of a run ({error})") from error


def saved_settings(path: Path) -> TrainingSettings:
    """How networks are trained in a run of any kind, from its configuration's file.

    Raises:
        ConfigError: the file is not a configuration.
    """
    values = read_values(path)
    try:
        names = [item.name for item in fields(TrainingSettings) if item.name not in LATER]
        later = {name: values[name] for name in LATER if name in values}
        return TrainingSettings(**{name: values[name] for name in names}, **later)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(f"{path}: not the configuration of a run ({error})") from error


def trained_on_all(path: Path) -> bool:
    """Whether a run's network was trained on validation images too, from its configuration's file.

    Raises:
        ConfigError: the file is not a configuration.
    """
    return read_values(path).get("on") == "all"


def _text(value: Any) -> str:
    return (",".join(value) if isinstance(value, tuple) else str(value)) or "none"
