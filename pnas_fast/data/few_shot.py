"""Few-shot tasks: a data set's classes split for good into three parts, and tasks drawn from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pnas_fast.data.batches import level_table
from pnas_fast.data.dataset import DataError, DataSet, shuffled_places, statistics
from pnas_fast.data.draws import new_plan
from pnas_fast.data.streamed import Streamed
from pnas_fast.kernels.augment import augment

Places = npt.NDArray[np.int64]


class ClassParts(NamedTuple):
    """The classes to train on, to validate on and to test on; none is in two of them."""

    train: Places
    validation: Places
    test: Places


def class_parts(classes: int) -> ClassParts:
    """A split of classes into 64, 16 and 20 %, rounded, by the seed of every split and their number alone."""
    validation, test = ((share * classes + 50) // 100 for share in (16, 20))
    order = np.argsort(shuffled_places(classes))
    train = classes - validation - test
    return ClassParts(*(np.sort(part) for part in np.split(order, [train, train + validation])))


def check_tasks(data: DataSet, ways: int, trained: int, judged: int) -> None:
    """Check that a data set has the classes and images of few-shot tasks.

    Args:
        data: the data set.
        ways: classes of a task.
        trained: images of each class in a task that is trained on.
        judged: likewise in a task of validation or test classes.

    Raises:
        DataError: a part has fewer classes, or a class fewer images, or they are not in memory.
    """
    if isinstance(data.train_images, Streamed):
        raise DataError(f"{data.name}: is streamed, few-shot tasks need data in memory, such as folder:DIR")
    parts = class_parts(data.classes)
    sizes, least = " / ".join(str(len(part)) for part in parts), min(map(len, parts))
    if least < ways:
        allowed = f"are tasks of 2 to {least}" if least >= 2 else "are 2 or more of each"
        raise DataError(
            f"{data.name}: tasks of {ways} classes, and its {data.classes} classes are split {sizes} to "
            f"train, validate and test on; allowed {allowed}"
        )
    members = _members(data)
    for name, part, images in zip(ClassParts._fields, parts, (trained, judged, judged), strict=True):
        fewest = min(part, key=lambda number: len(members[number]))
        if len(members[fewest]) < images:
            title = data.class_names[fewest] if data.class_names else fewest
            raise DataError(
                f"{data.name}: class {title} has {len(members[fewest])} images, of which few-shot tasks of "
                f"{name} classes take {images}"
            )


class Task(NamedTuple):
    """Images of some classes, and in which order they are shown.

    Attributes:
        images: (ways · each, C, H, W), normalised, all of a class after one another.
        labels: int64 (ways · each,), in [0, ways), on the images' device.
        places: int64 (iterations, batch): which images each step of adaptation shows.
    """

    images: Tensor
    labels: Tensor
    places: Tensor


class Steps(NamedTuple):
    """Steps of adaptation: how many, of how many images, all from the first ``shots`` of each class."""

    iterations: int
    batch: int
    shots: int


class Tasks:
    """Tasks of some classes, each a function of (seed, numbers) alone.

    A task's classes are drawn without repetition, and so are the images of each. Steps of adaptation show
    the images in one shuffled order after the other, cut into batches. Images are those of the data set's
    training and validation parts; none is augmented. They are normalised by mean and std of the training
    classes.

    Args:
        data: the data set; tasks are made on its device.
        classes: to draw from.
        ways: classes of a task.
        each: images of a class in a task.
        steps: of adaptation.
        seed: of all tasks; 0 or more.
        dtype: of the images.
    """

    def __init__(
        self,
        data: DataSet,
        classes: Sequence[int] | Places,
        ways: int,
        each: int,
        steps: Steps,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._members = [_members(data)[number] for number in classes]
        self._ways, self._each, self._steps, self._seed = ways, each, steps, seed
        device = data.train_images.device
        self._parts = [
            images.contiguous(memory_format=torch.channels_last)
            for images in (data.train_images, data.validation_images)
        ]
        self._table = level_table(_normalised(data), dtype)
        self._labels = torch.arange(ways, device=device).repeat_interleave(each)

    def draw(self, *numbers: int) -> Task:
        """The task of some numbers, each 0 or more."""
        generator = np.random.default_rng([self._seed, *numbers])
        chosen = generator.permutation(len(self._members))[: self._ways]
        places = [generator.permutation(self._members[number])[: self._each] for number in chosen]
        images = self._images(np.concatenate(places))
        shown = self._shown(generator)
        return Task(images, self._labels, torch.from_numpy(shown).to(images.device))

    def _shown(self, generator: np.random.Generator) -> Places:
        iterations, batch, shots = self._steps
        adapted = (np.arange(self._ways)[:, None] * self._each + np.arange(shots)).reshape(-1)
        rounds = -(-iterations * batch // len(adapted))
        order = np.concatenate([generator.permutation(adapted) for _ in range(rounds)])
        return order[: iterations * batch].reshape(iterations, batch)

    def _images(self, places: Places) -> Tensor:
        """Normalised images, by their places in training and validation parts one after the other."""
        first, second = self._parts
        device, split = first.device, len(first)
        wanted = torch.from_numpy(places).to(device)
        from_first = first[wanted.clamp(max=split - 1)]
        from_second = second[(wanted - split).clamp(min=0)]
        levels = torch.where((wanted < split)[:, None, None, None], from_first, from_second)
        rows = new_plan(len(places), device)
        rows[:, 0] = torch.arange(len(places), device=device)
        return augment(levels.contiguous(memory_format=torch.channels_last), rows, self._table, 0, 0)


@lru_cache(maxsize=1)
def _members(data: DataSet) -> list[Places]:
    """The places of each class's images, in training and validation parts one after the other."""
    labels = torch.cat([data.train_labels, data.validation_labels]).cpu().numpy()
    return [np.flatnonzero(labels == number) for number in range(data.classes)]


@lru_cache(maxsize=1)
def _normalised(data: DataSet) -> DataSet:
    """The data set with mean and std of its training classes' images alone."""
    labels = torch.cat([data.train_labels, data.validation_labels])
    mine = torch.isin(labels, torch.from_numpy(class_parts(data.classes).train).to(labels.device))
    split = len(data.train_labels)
    images = torch.cat([data.train_images[mine[:split]], data.validation_images[mine[split:]]])
    mean, std = statistics(images.permute(0, 2, 3, 1).cpu().numpy())
    return replace(data, mean=mean.to(data.mean.device), std=std.to(data.std.device))
