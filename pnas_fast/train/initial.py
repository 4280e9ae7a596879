"""Weights of another training that one begins with, as far as they fit, in place of random ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from pnas_fast.cli.options import ConfigError
from pnas_fast.files import replacing
from pnas_fast.foreign import reading
from pnas_fast.network import Genotype, Layout
from pnas_fast.runs.disk import writing
from pnas_fast.runs.weights import BEST, WeightsError, digest, load_child
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.network import design, published_names
from pnas_fast.train.training import LongTraining

INITIAL = "initial.safetensors"
"""A run's own copy of the weights that it began with."""

_TITLES = {"stem": "the stem", "classifier": "the classifier", "auxiliary": "the auxiliary head"}


@dataclass(frozen=True, slots=True)
class Initial:
    """A file of weights, and the network that they are of.

    Attributes:
        path: of the file.
        identity: its SHA-256.
        genotype, layout: of the network.
    """

    path: Path
    identity: str
    genotype: Genotype
    layout: Layout

    @classmethod
    def read(cls, place: Path) -> Initial:
        """Of a file of weights, or of a run's folder, whose best ones are meant.

        Raises:
            WeightsError: it cannot be used.
        """
        path = _file(place)
        identity = digest(path)
        network = load_child(path, expected=identity)
        for name, values in network.state_dict().items():
            if not torch.isfinite(values).all():
                raise WeightsError(f"{path}: tensor {name} has values that are no finite numbers")
        return cls(path, identity, network.genotype, network.layout)

    def settings(self) -> dict[str, str | int]:
        """``cell``, ``repeats`` and ``filters`` with which a training builds this network.

        Raises:
            ConfigError: there are none: it is no network for small images, or one that somebody changed.
        """
        repeats, filters = self.layout.repeats, self.layout.filters
        for cell in (*published_names(), str(self.genotype.normal)):
            config = TrainConfig(cell=cell, repeats=repeats, filters=filters)
            if design(config) == (self.genotype, self.layout):
                return {"cell": cell, "repeats": repeats, "filters": filters}
        raise ConfigError(
            f"--init {self.path}: its network has stem {self.layout.stem} around {self.genotype.normal}, "
            f"allowed are one cell's networks for small images and {' '.join(published_names())}"
        )

    def check(self, config: TrainConfig) -> None:
        """Raise `ConfigError` unless a training's network is that of the file, whatever its images."""
        if design(config) == (self.genotype, self.layout):
            return
        asked = {name: getattr(config, name) for name in ("cell", "repeats", "filters")}
        raise ConfigError(
            f"--init {self.path}: its network is {_shown(self.settings())}, asked for is {_shown(asked)}, "
            "allowed is its own (as without --cell, --repeats and --filters)"
        )


def begin_with(training: LongTraining, config: TrainConfig, folder: Path, *, leads: bool) -> str:
    """Give a training that is at its beginning the weights that its configuration names.

    The first call leaves a copy of them in the run's folder, and all others take that one.

    Args:
        training: its network is the one of the weights, but for classes and images.
        config: its own.
        folder: of the run, which seeds share.
        leads: whether this process writes.

    Returns:
        One line for people: how much of the network they are.

    Raises:
        WeightsError: others than the run was begun with, or none.
        DiskError: the copy cannot be written.
    """
    copy, file = folder / INITIAL, _file(Path(config.init))
    if leads and not copy.exists():
        _copy(file, copy, config.init_identity)
    source = copy if copy.exists() else file
    fresh = training.begin_with(load_child(source, expected=config.init_identity).state_dict())
    whole = len(training.network.state_dict())
    parts = Counter(name.partition(".")[0] for name in fresh)
    named = [f"{_TITLES.get(part, part)} ({number})" for part, number in parts.items()]
    return (
        f"begins with the weights of {file}: {whole - len(fresh):,} of {whole:,} tensors; "
        f"fresh: {', '.join(named) or 'none'}"
    )


def _copy(file: Path, copy: Path, expected: str) -> None:
    with reading(file, WeightsError, "cannot be read"):
        content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise WeightsError(
            f"--init {file}: its SHA-256 is {found[:16]}…, expected {expected[:16]}…, the weights that this "
            "training is to begin with"
        )
    with writing(copy), replacing(copy) as temporary:
        temporary.write_bytes(content)


def _file(place: Path) -> Path:
    return place / BEST if place.is_dir() else place


def _shown(settings: dict[str, str | int]) -> str:
    return f"{settings['cell']} with N {settings['repeats']}, F {settings['filters']}"
