"""How a child is built and trained."""

from __future__ import annotations

from dataclasses import dataclass

from pnas_fast.cli.options import SWITCH, check, option
from pnas_fast.data import forms
from pnas_fast.engine.precision import PRECISIONS
from pnas_fast.kernels import BACKENDS

OPTIMIZERS = ("sgd", "rmsprop")

LATER = (
    "image_size",
    "skip_unreadable",
    "cache",
    "flip",
    "crop_padding",
    "cutout",
    "class_weights",
    "loaders",
    "share",
)
"""Settings that the first configurations did not have.

Without them they have their defaults, and with their defaults runs and measurements are what they were.
"""

OF_DATA = ("data", "image_size", "skip_unreadable", "cache", "flip", "crop_padding")
"""Settings that say which images there are, and how they are augmented: what comes of it is known by its
content, augmentation included."""

AUGMENTATION = ("flip", "crop_padding")
"""Those of them that say how images are augmented."""

HOW = (*OF_DATA, "backend", "precision", "device", "threads", "share", "loaders", "time_limit")
"""Settings that may change while a run is continued: where data lie, and how children are carried out."""

CLASS_WEIGHTS = ("none", "balanced")

MOST_EPOCHS = 100_000
MOST_BATCH = 2**20
MOST_PIXELS_A_SIDE = 4096
MOST_LOADERS = 1024
MOST_SHARE = 64


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
    flip: str = option(
        "auto",
        "mirror training images left and right at random; by default where the data set's labels survive it",
        choices=SWITCH,
    )
    crop_padding: int = option(
        -1,
        "pixels that random crops of training images move by; -1 is as the data set says",
        minimum=-1,
        maximum=MOST_PIXELS_A_SIDE,
    )
    cutout: int = option(
        0, "side of a square blanked out of every training image; 0 is none", minimum=0, maximum=10_000
    )
    loaders: int = option(
        0,
        "processes that decode images beside each training; 0 is one for each core (imagefolder, webdataset)",
        minimum=0,
        maximum=MOST_LOADERS,
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
    class_weights: str = option(
        "none",
        "what an image's loss is multiplied by: none, or balanced, which makes all classes count alike, "
        "however many images they have",
        choices=CLASS_WEIGHTS,
    )
    drop_path: float = option(0.0, "largest probability of dropping an operation", minimum=0, maximum=0.999)
    clip: float = option(5.0, "largest gradient norm; 0 is no limit", minimum=0, maximum=1e9)
    time_limit: float = option(600.0, "seconds after which a child is given up", minimum=0.001, maximum=1e9)
    threads: int = option(
        1, "CPU threads of one child; their number changes rounding", minimum=1, maximum=1024
    )
    share: int = option(
        0,
        "triton kernels fill one part of so many of a GPU, which leaves other children room; their number "
        "changes rounding; 0 is what is chosen with the number of children, which a search keeps",
        minimum=0,
        maximum=MOST_SHARE,
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
