"""An exported network on image files: pixels in, named classes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pnas_fast.export.class_names import read_class_names
from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.images import as_input, read_pixels, readable
from pnas_fast.export.sessions import Session
from pnas_fast.foreign import reading
from pnas_fast.pictures import PictureError

_NEEDED = ("title", "precision", "preprocessing")

Refused = Callable[[PictureError], None]


def _raise(error: PictureError) -> None:
    raise ExportError(str(error)) from error


class Guess(NamedTuple):
    """A class of an image."""

    name: str
    probability: float


class Classifier:
    """A session, with what its file says about images and classes.

    Args:
        session: of a file that an export wrote.
        names: a file with a class a line; None takes the model's own, or numbers where it has none.

    Attributes:
        images: what the network takes.

    Raises:
        ExportError: a file that does not say what images it takes, or names that are not as many as classes.
    """

    def __init__(self, session: Session, names: Path | None = None) -> None:
        self.session = session
        missing = [name for name in _NEEDED if name not in session.metadata]
        if missing:
            raise ExportError(
                f"{session.path}: does not say its {', '.join(missing)}, expected a file that "
                "python -m pnas_fast.export wrote"
            )
        try:
            self.images = ImageFormat.from_json(session.metadata["preprocessing"])
            self._check_input()
        except ExportError as error:
            raise ExportError(f"{session.path}: {error}") from error
        self._names = _own_names(session) if names is None else read_class_names(names, session.classes)

    def _check_input(self) -> None:
        """What the file says of its images must be what its graph takes."""
        images = self.images
        _, *taken = self.session.input.shape
        said = images.shape if self.session.dtype == np.float32 else (*images.shape[1:], images.channels)
        # A size that is a name may be any.
        if any(isinstance(size, int) and size != known for size, known in zip(taken, said, strict=True)):
            raise ExportError(f"takes images {taken}, its preprocessing says {list(said)}")
        images.check_batch(self.session.batch or 1)

    def noise(self, count: int) -> npt.NDArray[Any]:
        """So many images of noise as the session takes them."""
        self.images.check_batch(count)
        shape = (count, self.images.height, self.images.width, self.images.channels)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return as_input(pixels, self.images, self.session.dtype)

    def read(self, paths: Sequence[Path]) -> npt.NDArray[Any]:
        """Image files as the session takes them.

        Raises:
            ExportError: one of them is no image.
        """
        return as_input(read_pixels(paths, self.images), self.images, self.session.dtype)

    def classify(
        self, paths: Sequence[Path], batch: int, top: int, refused: Refused = _raise
    ) -> Iterator[tuple[Path, list[Guess]]]:
        """Every image with its ``top`` most probable classes, the best first; reads a batch at a time.

        Args:
            paths: of image files.
            batch: images at a time.
            top: classes of an image.
            refused: told of every file that is no image, after which the others are classified; without it
                the first such file ends it.

        Raises:
            ExportError: a file that is no image, where nobody is told; a network that fails, or whose logits
                are not finite.
        """
        self.images.check_batch(batch)
        pictures = readable(paths, self.images, refused)
        while part := list(islice(pictures, batch)):
            pixels = np.stack([picture for _, picture in part])
            found = self.session.run_all(as_input(pixels, self.images, self.session.dtype), batch)
            for (path, _), logits in zip(part, found, strict=True):
                self.session.require_finite(logits, str(path))
                yield path, self._best(logits.astype(np.float64), top)

    def _best(self, logits: npt.NDArray[np.float64], top: int) -> list[Guess]:
        weights = np.exp(logits - logits.max())
        probabilities = weights / weights.sum()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [Guess(self._names[place], float(probabilities[place])) for place in best]


def _own_names(session: Session) -> list[str]:
    if "classes" not in session.metadata:
        return [f"class {number}" for number in range(session.classes)]
    with reading(session.path, ExportError, "does not name its classes as an export does"):
        names = msgspec.json.decode(session.metadata["classes"], type=list[str])
    if len(names) != session.classes:
        raise ExportError(f"{session.path}: names {len(names)} classes, expected {session.classes}")
    return names
