"""What a run remembers of its images for people: how many of each class, and how they are augmented."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from pnas_fast.data import DataSet
from pnas_fast.runs.database import decode
from pnas_fast.runs.store import TrialStore

IMAGES = "images"
"""The name of the fact."""

UNBALANCED = 1.5
"""Classes are called unbalanced where one has so many times as many images as another: a random split of
equally large ones has hardly ever."""

Counts = tuple[Annotated[int, Meta(ge=0)], ...]


@dataclass(frozen=True, slots=True)
class RunImages:
    """The images of a run.

    Attributes:
        class_names: of the classes, in order; empty where they have none.
        image_shape: (C, H, W).
        train: images of each class to train on.
        validation: to validate on.
        test: to test on; empty without a test part.
        crop_padding: pixels that crops move by.
        flip: whether images are mirrored at random.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Counts
    validation: Counts
    test: Counts
    crop_padding: int
    flip: bool

    @classmethod
    def of(cls, data: DataSet) -> RunImages:
        """Those of a data set."""
        parts = (data.train_labels, data.validation_labels, data.test_labels)
        train, validation, test = (
            () if labels is None else tuple(labels.bincount(minlength=data.classes).tolist())
            for labels in parts
        )
        return cls(data.class_names, data.image_shape, train, validation, test, data.crop_padding, data.flip)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in order; their numbers where they have none."""
        return self.class_names or tuple(map(str, range(len(self.train))))

    @property
    def is_unbalanced(self) -> bool:
        """Whether some class has `UNBALANCED` times as many images to train on as another."""
        return max(self.train) >= UNBALANCED * min(self.train)


def remember_images(store: TrialStore, data: DataSet) -> None:
    """Make a store say what its run's images are."""
    store.set_fact(IMAGES, msgspec.json.encode(asdict(RunImages.of(data))).decode())


def images_of(store: TrialStore, where: str) -> RunImages | None:
    """What a store says of its run's images; None where an earlier version made it.

    Args:
        store: of the run.
        where: the store's file, for messages.

    Raises:
        StoreError: the store says something else.
    """
    text = store.fact(IMAGES)
    return None if text is None else decode(text, RunImages, f"{where}: {IMAGES}")
