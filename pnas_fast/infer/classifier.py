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
        if "preprocessing" not in session.metadata:
            raise ExportError(
                f"{session.path}: does not say how images are prepared, expected a file that "
                "python -m pnas_fast.export wrote"
            )
        self.images = ImageFormat.from_json(session.metadata["preprocessing"])
        if names is not None:
            self._names = read_class_names(names, session.classes)
        elif "classes" in session.metadata:
            self._names = list(map(str, json.loads(session.metadata["classes"])))
        else:
            self._names = [f"class {number}" for number in range(session.classes)]

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
