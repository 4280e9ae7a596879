"""The network of a long training: a cell's text or a published network's name, made large."""

from __future__ import annotations

from dataclasses import replace

import torch

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataSet
from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.train.config import TrainConfig
from pnas_fast.zoo.models import MODELS


def published_names() -> list[str]:
    """Published networks that can be trained: those for small images."""
    return [name for name, model in MODELS.items() if model.layout.stem == "cifar"]


def published_size(cell: str) -> dict[str, int]:
    """The repeats and filters of a published network; nothing for a cell's text."""
    if cell not in published_names():
        return {}
    layout = MODELS[cell].layout
    return {"repeats": layout.repeats, "filters": layout.filters}


def design(config: TrainConfig) -> tuple[Genotype, Layout]:
    """The cells of the network and how it is put together.

    Raises:
        ConfigError: ``cell`` is neither a cell nor the name of a published network.
    """
    repeats, filters = config.repeats, config.filters
    if config.cell in published_names():
        model = MODELS[config.cell]
        return model.genotype, replace(model.layout, repeats=repeats, filters=filters)
    try:
        return Genotype.parse(config.cell), Layout(repeats=repeats, filters=filters)
    except ValueError as error:
        names = " ".join(published_names())
        raise ConfigError(f"cell: {error}; allowed are a cell's text and {names}") from error


def build(config: TrainConfig, data: DataSet) -> CellNetwork:
    """The network, with seeded weights, on the data set's device.

    Raises:
        ConfigError: it cannot be built for such images.
    """
    genotype, layout = design(config)
    torch.manual_seed(config.seed)
    try:
        network = CellNetwork(
            genotype,
            layout,
            data.classes,
            data.image_shape,
            backend=config.backend,
            drop_path=config.drop_path,
            auxiliary=config.auxiliary > 0,
        )
    except ValueError as error:
        raise ConfigError(f"{error} (--auxiliary 0 is without one)") from error
    network.to(data.train_images.device)
    network.arrange()
    return network
