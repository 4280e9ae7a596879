"""From a network to a checked ONNX file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from pnas_fast.data import DataSet
from pnas_fast.data.loader import resident
from pnas_fast.data.streamed import Streamed
from pnas_fast.export.checks import (
    RANDOM_BATCHES,
    Comparison,
    Runner,
    check_structure,
    compare,
    comparison,
    require_close,
)
from pnas_fast.export.errors import ExportError
from pnas_fast.export.graph import LARGEST_FILE, TOO_LARGE
from pnas_fast.export.images import Pixels, as_input, read_pixels
from pnas_fast.export.model_file import Form, build, check_size, description, fix_batch, size_of_constants
from pnas_fast.export.quantise import quantise
from pnas_fast.export.sessions import open_session
from pnas_fast.export.subject import Subject
from pnas_fast.files import replacing, scratch

CALIBRATION_IMAGES = 256
"""At most so many images give int8 its ranges."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Measured on the validation images of a data set.

    Attributes:
        file: the file's, in [0, 1].
        network: PyTorch's in float32.
        images: how many.
        data: the data set's name.
    """

    file: float
    network: float
    images: int
    data: str

    @property
    def described(self) -> dict[str, object]:
        """As a file says it."""
        return {"top1": self.file, "images": self.images, "validation of": self.data}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written and how it was checked.

    Attributes:
        path: the file.
        size: its bytes, with those of its weights.
        load_seconds: that it took to load it; None where it was not loaded.
        seconds: of the whole export.
        random: the comparison on random images.
        real: that on real ones, validation images or the user's; None without any.
        accuracy: None without a data set, or where its validation images were trained on.
        weights: the file that a source has its weights in.
    """

    path: Path
    size: int
    load_seconds: float | None
    seconds: float
    random: Comparison
    real: Comparison | None
    accuracy: Accuracy | None
    weights: Path | None = None


def export_model(
    subject: Subject,
    path: Path,
    form: Form,
    *,
    pictures: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write a network as ONNX, after checking that ONNX Runtime computes what PyTorch does.

    The file is checked by ONNX itself and compared with PyTorch on random images, on the data set's
    validation images, and on ``pictures``. int8 takes its ranges from ``pictures``, or else from training
    images.

    Args:
        subject: the network, which is left in evaluation mode.
        path: of the file; it appears whole or not at all.
        form: precision, input and batch.
        pictures: image files.
        progress: told what is being done.

    Raises:
        ExportError: a check fails, int8 without images to calibrate on, images that are refused, or a network
            or batch that is too large.
        OSError: the file cannot be written.
    """
    started = time.monotonic()
    subject.network.eval()
    check_size(subject.network, form.precision)
    subject.images.check_batch(form.batch or max(RANDOM_BATCHES))
    seen = read_pixels(pictures, subject.images) if pictures else None
    progress("writing the graph")
    model = build(subject.network, subject.images, form)
    if form.precision == "int8":
        progress("calibrating int8")
        dtype = np.uint8 if form.input == "uint8" else np.float32
        model = _quantised(model, as_input(_calibration(subject.data, seen), subject.images, dtype), path)
    if form.batch is not None:
        fix_batch(model, form.batch)
    _describe(model, subject, form, None)
    with replacing(path) as temporary:
        onnx.save(model, temporary)
        progress("checking the graph")
        check_structure(temporary)
        loading = time.monotonic()
        session = open_session(temporary, "cpu")
        loaded = time.monotonic() - loading
        progress("comparing with PyTorch")
        random = compare_random(subject, session, form)
        real, accuracy = compare_real(subject, session, form, seen)
        if accuracy is not None:
            _describe(model, subject, form, accuracy)
            onnx.save(model, temporary)
        size = temporary.stat().st_size
    return Exported(path, size, loaded, time.monotonic() - started, random, real, accuracy)


def _quantised(model: onnx.ModelProto, inputs: npt.NDArray[Any], path: Path) -> onnx.ModelProto:
    with scratch(path) as folder:
        quantised = quantise(model, inputs, folder, apart=size_of_constants(model) > LARGEST_FILE)
    if size_of_constants(quantised) > LARGEST_FILE:
        raise ExportError(TOO_LARGE)
    return quantised


def _calibration(data: DataSet | None, seen: Pixels | None) -> Pixels:
    if seen is not None:
        return seen[:CALIBRATION_IMAGES]
    if data is None:
        raise ExportError("int8 needs images to calibrate on, and neither images nor a data set are given")
    return _pixels(data.train_images[:CALIBRATION_IMAGES])


def compare_random(subject: Subject, session: Runner, form: Form) -> Comparison:
    """On images of noise, in batches of several sizes.

    Calibrated ranges hold for real images alone: int8 need only give numbers here.
    """
    batches = RANDOM_BATCHES if form.batch is None else (form.batch,)
    images = subject.images
    shape = (max(batches), images.height, images.width, images.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = compare(subject.network, session, noise, images)
    for batch in batches:
        logits = session.run(as_input(noise[:batch], images, session.dtype))
        again = comparison(logits, found.ours[:batch])
        if form.precision != "int8":
            require_close(again, form.precision, "random")
        elif not np.isfinite(logits).all():
            raise ExportError("logits of random images are not finite in int8")
    return found


def compare_real(
    subject: Subject, session: Runner, form: Form, seen: Pixels | None
) -> tuple[Comparison | None, Accuracy | None]:
    """On the user's images and on the validation images; the result is of the latter if there are any."""
    found, accuracy = None, None
    if seen is not None:
        found = compare(subject.network, session, seen, subject.images)
        require_close(found, form.precision, "given")
    if subject.data is not None:
        pixels = _pixels(subject.data.validation_images)
        found = compare(subject.network, session, pixels, subject.images)
        require_close(found, form.precision, "validation")
    if subject.data is not None and found is not None and subject.judged:
        data = subject.data
        labels = data.validation_labels.numpy()
        theirs, ours = (
            float((logits.argmax(axis=1) == labels).mean()) for logits in (found.theirs, found.ours)
        )
        accuracy = Accuracy(theirs, ours, len(labels), data.name.partition(":")[0])
    return found, accuracy


def _describe(model: onnx.ModelProto, subject: Subject, form: Form, accuracy: Accuracy | None) -> None:
    entries = description(
        subject.network,
        subject.images,
        form,
        title=subject.title,
        class_names=subject.class_names,
        accuracy=None if accuracy is None else accuracy.described,
    )
    onnx.helper.set_model_props(model, entries)


def _pixels(images: Tensor | Streamed) -> Pixels:
    """A data set's images (n, C, H, W) as files have them, (n, H, W, C)."""
    pixels: Pixels = resident(images).permute(0, 2, 3, 1).numpy()
    return pixels
