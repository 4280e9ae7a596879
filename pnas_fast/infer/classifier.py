"""An exported network on image files: pixels in, named classes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pnas_fast.export.class_names import read_class_names
from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.images import as_input, read_pixels
from pnas_fast.export.sessions import Session

_NEEDED = ("title", "precision", "preprocessing")


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
        self.images = ImageFormat.from_json(session.metadata["preprocessing"])
        self._names = _own_names(session) if names is None else read_class_names(names, session.classes)

    def read(self, paths: Sequence[Path]) -> npt.NDArray[Any]:
        """Image files as the session takes them."""
        return as_input(read_pixels(paths, self.images), self.images, self.session.dtype)

    def noise(self, count: int) -> npt.NDArray[Any]:
        """So many images of noise as the session takes them."""
        shape = (count, self.images.height, self.images.width, self.images.channels)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return as_input(pixels, self.images, self.session.dtype)

    def classify(self, paths: Sequence[Path], batch: int, top: int) -> Iterator[tuple[Path, list[Guess]]]:
        """Every image with its ``top`` most probable classes, the best first; reads a batch at a time."""
        for start in range(0, len(paths), batch):
            part = paths[start : start + batch]
            for path, logits in zip(part, self.session.run_all(self.read(part), batch), strict=True):
                yield path, self._best(logits.astype(np.float64), top)

    def _best(self, logits: npt.NDArray[np.float64], top: int) -> list[Guess]:
        weights = np.exp(logits - logits.max())
        probabilities = weights / weights.sum()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [Guess(self._names[place], float(probabilities[place])) for place in best]


def _own_names(session: Session) -> list[str]:
    if "classes" not in session.metadata:
        return [f"class {number}" for number in range(session.classes)]
    names = json.loads(session.metadata["classes"])
    if len(names) != session.classes:
        raise ExportError(f"{session.path}: names {len(names)} classes, expected {session.classes}")
    return list(map(str, names))
