"""Settings that suit a data set's images, for what nobody asked for; and those that no images suit."""

from __future__ import annotations

import math
from typing import Any

import torch

from pnas_fast.data import DataSet
from pnas_fast.data.augmentation import check_cutout
from pnas_fast.network import CellNetwork
from pnas_fast.network.auxiliary import POOL
from pnas_fast.network.cell import CellModule
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.network import design

CIFAR_IMAGES = 45_000
"""Training images of the data set that the published recipe, `TrainConfig`'s defaults, is for."""

FEWEST_EPOCHS = 60

TINY = 12
"""Sides below this, in pixels, are too short for cutout, and for as much drop-path as the recipe has."""

IN_HELP = {
    "epochs": "600 for CIFAR-10, fewer for larger and smaller sets",
    "cutout": f"16, at most half an image's side, 0 below {TINY} pixels",
    "drop_path": f"0.4, 0.1 where images are below {TINY} pixels",
    "auxiliary": f"0.4, 0 where its map is below {POOL}×{POOL}",
}
"""What `suited` does, by the name of the option, in place of a default."""


def suited(config: TrainConfig, data: DataSet) -> dict[str, Any]:
    """The settings that follow a data set, by name; on CIFAR-10 they are the published recipe's.

    Epochs are 600·√(n / 45,000) for n training images up to 45,000, since a small set is soon learnt by
    heart, and 600·45,000 / n beyond, which is as many images in all; at least 60.

    Args:
        config: says which network.
        data: the data set, cut to ``train_images``.
    """
    side, images = min(data.image_shape[1:]), len(data.train_labels)
    share = math.sqrt(images / CIFAR_IMAGES) if images < CIFAR_IMAGES else CIFAR_IMAGES / images
    return {
        "epochs": max(FEWEST_EPOCHS, round(TrainConfig.epochs * share)),
        "cutout": 0 if side < TINY else min(TrainConfig.cutout, side // 2),
        "drop_path": 0.1 if side < TINY else TrainConfig.drop_path,
        "auxiliary": TrainConfig.auxiliary if _auxiliary_map(config, data) >= POOL else 0.0,
    }


def check_suits(config: TrainConfig, data: DataSet) -> None:
    """Raise `ConfigError` where cutout could blank out a whole image."""
    check_cutout(data, config.cutout)


def _auxiliary_map(config: TrainConfig, data: DataSet) -> int:
    """The shorter side of the map that an auxiliary classifier would read; 0 where there is no network."""
    genotype, layout = design(config)
    try:
        with torch.device("meta"):
            network = CellNetwork(genotype, layout, data.classes, data.image_shape)
    except ValueError:  # which is said where the network is built
        return 0
    cell = network.cells[network.auxiliary_place]
    assert isinstance(cell, CellModule)
    return min(cell.shape.height, cell.shape.width)
