"""How a child is built and trained."""

from __future__ import annotations

from dataclasses import dataclass

from pnas_fast.cli.options import check, option
from pnas_fast.data import forms
from pnas_fast.engine.precision import PRECISIONS
from pnas_fast.kernels import BACKENDS

OPTIMIZERS = ("sgd", "rmsprop")

LATER = ("image_size", "skip_unreadable", "cache")
"""Settings that the first configurations did not have; without them they have their defaults."""

HOW = ("data", *LATER, "backend", "precision", "device", "threads", "time_limit")
"""Settings that may change while a run is continued: where data lie, and how children are carried out.

Images of another size are other data, which are known by their content.
"""

MOST_EPOCHS = 100_000
MOST_BATCH = 2**20
MOST_PIXELS_A_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One child's size and training recipe; the defaults are those of the ``quick`` preset.

    Raises:
        ConfigError: a value outside its limits.
    """

    data: str = option("digits", f"data set: {forms()}")
    train_images: int = option(
        0, "train each child on the first so many images; 0 is all", minimum=0, maximum=10**9
    )
    image_size: int = option(
        0,
        "resize images to so many pixels a side (the shorter side, then the square in the middle); 0 is as "
        "they are (folder)",
        minimum=0,
        maximum=MOST_PIXELS_A_SIDE,
    )
    skip_unreadable: bool = option(
        False, "leave files out that are no images, and count them, in place of an error (folder)"
    )
    cache: str = option(
        "", "folder for decoded images; by default pnas_fast/data in the user's cache folder (folder)"
    )
    repeats: int = option(1, "N: a child has 3N cells", minimum=1, maximum=100)
    filters: int = option(8, "F: channels of a block in the first cells", minimum=1, maximum=4096)
    epochs: int = option(3, "passes over the training images", minimum=1, maximum=MOST_EPOCHS)
    batch: int = option(64, "images a step", minimum=2, maximum=MOST_BATCH)
    optimizer: str = option(
        "sgd", "sgd (Nesterov momentum 0.9) or rmsprop (0.9, 0.9, epsilon 1)", choices=OPTIMIZERS
    )
    learning_rate: float = option(
        0.1, "at the first step; falls to 0 along a cosine", minimum=1e-9, maximum=1e3
    )
    weight_decay: float = option(5e-4, "on convolution and classifier weights", minimum=0, maximum=1)
    label_smoothing: float = option(
        0.0, "share of the target spread over all classes", minimum=0, maximum=0.999
    )
    drop_path: float = option(0.0, "largest probability of dropping an operation", minimum=0, maximum=0.999)
    clip: float = option(5.0, "largest gradient norm; 0 is no limit", minimum=0, maximum=1e9)
    time_limit: float = option(600.0, "seconds after which a child is given up", minimum=0.001, maximum=1e9)
    threads: int = option(
        1, "CPU threads of one child; their number changes rounding", minimum=1, maximum=1024
    )
    backend: str = option("auto", "kernels; auto is the fastest on this device", choices=("auto", *BACKENDS))
    precision: str = option(
        "auto",
        "type of activations: fp32, bf16 or fp16 with loss scaling; auto is bf16 on a GPU that has it",
        choices=PRECISIONS,
    )
    device: str = option("auto", "where children train", choices=("auto", "cpu", "cuda"))

    def __post_init__(self) -> None:
        check(self)
