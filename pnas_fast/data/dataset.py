"""A data set in memory: images, labels, the train / validation / test split and how to normalise."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pnas_fast.data.streamed import Streamed

SPLIT_SEED = 20180909
"""Seeds every split, so that all runs, whatever their own seed, validate on the same images."""

Images = npt.NDArray[np.uint8]

Pixels: TypeAlias = Tensor | Any
"""A tensor, or what has its place where images are `Streamed`, which few need know of."""


class DataError(ValueError):
    """A data set that cannot be used; the message names the file or value and what was expected."""


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Images and labels of a classification task, split into training and validation, perhaps with a test.

    Images are uint8 (n, C, H, W) grey levels 0 to 255, labels int64 (n,) in [0, classes). A network
    sees ``(image - mean) / std`` with float32 (C,) ``mean`` and ``std`` in grey levels, taken over the
    training images. Augmentation pads ``crop_padding`` pixels on every side and crops back at random,
    and mirrors left and right where ``flip`` says that labels survive it.

    Test images, where there are any, choose nothing: see `tested`. ``class_names``, where they are known,
    are for people.

    Images that do not fit in memory are `Streamed` in a tensor's place, all parts or none: they are decoded
    when batches are made of them, and labels are tensors as ever.

    Raises:
        DataError: an empty part, a wrong shape or dtype, or a label or setting out of range.
    """

    name: str
    classes: int
    train_images: Pixels
    train_labels: Tensor
    validation_images: Pixels
    validation_labels: Tensor
    mean: Tensor
    std: Tensor
    crop_padding: int
    flip: bool
    test_images: Pixels | None = None
    test_labels: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check("training", self.train_images, self.train_labels)
        self._check("validation", self.validation_images, self.validation_labels)
        if (self.test_images is None) != (self.test_labels is None):
            raise DataError(f"{self.name}: test images or labels alone, allowed are both or none")
        if self.test_images is not None and self.test_labels is not None:
            self._check("test", self.test_images, self.test_labels)
        for name, statistic in (("mean", self.mean), ("std", self.std)):
            if statistic.shape != self.image_shape[:1]:
                raise DataError(
                    f"{self.name}: {name} has shape {tuple(statistic.shape)}, expected {self.image_shape[:1]}"
                )
        if not (self.std > 0).all():
            raise DataError(f"{self.name}: std is {self.std.tolist()}, allowed is more than 0")
        if self.class_names and len(self.class_names) != self.classes:
            raise DataError(f"{self.name}: {len(self.class_names)} class names for {self.classes} classes")
        if self.crop_padding < 0:
            raise DataError(f"{self.name}: crop padding of {self.crop_padding} pixels, allowed are 0 or more")

    def _check(self, part: str, images: Pixels, labels: Tensor) -> None:
        found = f"{self.name}: {part} images are {images.dtype} of shape {tuple(images.shape)}"
        if images.dtype != torch.uint8 or len(images.shape) != 4 or 0 in images.shape:
            raise DataError(f"{found}, expected torch.uint8 of shape (n, C, H, W), none of them 0")
        if images.shape[1:] != self.train_images.shape[1:]:
            raise DataError(f"{found}, expected (n, C, H, W) = (n, {', '.join(map(str, self.image_shape))})")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.name}: {part} labels are {labels.dtype} of shape {tuple(labels.shape)}, "
                f"expected torch.int64 of shape ({len(images)},)"
            )
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= self.classes:
            raise DataError(
                f"{self.name}: {part} labels run from {least} to {most}, allowed are 0 to {self.classes - 1}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The (C, H, W) of every image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> DataSet:
        """The same data set in the memory of another device."""
        tensors = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in tensors.items() if isinstance(value, Tensor | Streamed)
        }
        return replace(self, **moved)

    def tested(self) -> DataSet:
        """The same data set with its test images in the validation images' place.

        Whoever evaluates a network on it learns its error on images that chose nothing.

        Raises:
            DataError: there are none.
        """
        if self.test_images is None or self.test_labels is None:
            raise DataError(f"{self.name}: has no test images")
        return replace(self, validation_images=self.test_images, validation_labels=self.test_labels)

    def joined(self, seed: int) -> DataSet:
        """The same data set with its validation images among those that are trained on.

        Their order is a function of the seed, and mean and std are taken over all of them, but for streamed
        images, which keep theirs. The validation
        part stays as it is, but has become part of what is learnt: accuracy on it says nothing of other
        images and can choose nothing. Test images are what they were.

        Args:
            seed: 0 to 2^32 - 1.
        """
        channels, height, width = self.image_shape
        count = len(self.train_labels) + len(self.validation_labels)
        places = np.random.RandomState(seed).permutation(count)
        labels = np.empty(count, np.int64)
        labels[places] = torch.cat([self.train_labels, self.validation_labels]).cpu().numpy()
        device = self.train_images.device
        targets = torch.from_numpy(labels).to(device)
        first, second = self.train_images, self.validation_images
        if isinstance(first, Streamed) and isinstance(second, Streamed):
            return replace(self, train_images=first.joined(second, places), train_labels=targets)
        images = np.empty((count, height, width, channels), np.uint8)
        split = len(first)
        for part, where in ((first, places[:split]), (second, places[split:])):
            images[where] = part.permute(0, 2, 3, 1).cpu().numpy()
        mean, std = statistics(images)
        return replace(
            self,
            train_images=torch.from_numpy(images).permute(0, 3, 1, 2).to(device),
            train_labels=targets,
            mean=mean.to(device),
            std=std.to(device),
        )

    def subset(self, train_images: int) -> DataSet:
        """The same data set with only its first training images (their order is random already).

        Normalisation stays that of the whole set, so that results compare across subsets.

        Raises:
            DataError: not from 1 to the number of training images.
        """
        if not 1 <= train_images <= len(self.train_labels):
            raise DataError(
                f"{self.name}: {train_images} training images asked for, "
                f"allowed are 1 to {len(self.train_labels)}"
            )
        return replace(
            self,
            train_images=self.train_images[:train_images],
            train_labels=self.train_labels[:train_images],
        )


def channels_last(value: Tensor) -> Tensor:
    """Images (n, H, W, C) of (n, C, H, W), as they lie in memory; what are no images as they are."""
    return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


def channels_first(value: Tensor) -> Tensor:
    """What `channels_last` was made of."""
    return value.permute(0, 3, 1, 2) if value.ndim == 4 else value


def shuffled_places(count: int) -> npt.NDArray[np.int64]:
    """A fixed permutation of ``count`` images: the place of each in the shuffled set.

    The legacy generator is used because its stream is frozen: the split never changes with NumPy.
    """
    return np.random.RandomState(SPLIT_SEED).permutation(count).astype(np.int64)


def usual_validation(count: int) -> int:
    """How many of so many images validate where nothing else is said: a tenth."""
    return count // 10


def usual_padding(height: int, width: int) -> int:
    """Pixels that a crop may move by where nothing else is said: 4, or an eighth of smaller images."""
    return min(4, min(height, width) // 8)


def from_arrays(
    name: str,
    classes: int,
    images: Images,
    labels: npt.NDArray[np.integer],
    *,
    validation: int,
    test: int = 0,
    crop_padding: int,
    flip: bool,
) -> DataSet:
    """A data set from uint8 (n, H, W, C) images; the last ``test`` test, and ``validation`` before validate.

    The tensors share the array's memory, which makes them channels_last, as batches are.
    """
    end = len(images) - test
    split = end - validation
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    targets = torch.from_numpy(labels.astype(np.int64))
    mean, std = statistics(images[:split])
    return DataSet(
        name,
        classes,
        train_images=pixels[:split],
        train_labels=targets[:split],
        validation_images=pixels[split:end],
        validation_labels=targets[split:end],
        mean=mean,
        std=std,
        crop_padding=crop_padding,
        flip=flip,
        test_images=pixels[end:] if test else None,
        test_labels=targets[end:] if test else None,
    )


def statistics(images: Images) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of (n, H, W, C), float32 (C,), in grey levels.

    They come from integer histograms, so they do not depend on the order of a floating-point sum.
    A constant channel has standard deviation 1: it becomes 0, not NaN.
    """
    channels, levels = images.shape[-1], np.arange(256)
    counts = np.zeros((channels, 256), np.int64)
    # In parts, because bincount makes eight bytes of each value.
    for start in range(0, len(images), 500):
        for channel in range(channels):
            counts[channel] += _histogram(images[start : start + 500, ..., channel].ravel())
    total = counts.sum(1)
    mean = counts @ levels / total
    variance = (counts * (levels - mean[:, None]) ** 2).sum(1) / total
    std = np.sqrt(np.where(variance > 0, variance, 1.0))
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32))


def _histogram(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How often each of 256 values occurs. They are counted in pairs, which takes half the time."""
    even = len(values) // 2 * 2
    pairs = np.bincount(values[:even].view(np.uint16), minlength=2**16).reshape(256, 256)
    counts: npt.NDArray[np.int64] = pairs.sum(0) + pairs.sum(1)
    return counts + np.bincount(values[even:], minlength=256)
