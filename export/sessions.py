"""ONNX Runtime sessions: which provider was asked for, which there are, which runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from pnas_fast.export.errors import ExportError
from pnas_fast.export.providers import PROVIDERS
from pnas_fast.foreign import printable, reading

Array = npt.NDArray[Any]

_QUIET = 4
"""ONNX Runtime's level of messages: what ends the program. Errors are raised, and told by whoever asked."""

_INPUTS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
"""Types of input that are served."""

_NAMED = 8
"""Inputs and outputs that a message names; a foreign file may have thousands."""


@dataclass(frozen=True, slots=True)
class Session:
    """An open file.

    Attributes:
        path: of the file.
        asked: the provider that was asked for.
        available: the providers that this ONNX Runtime has.
        got: the providers that the session uses, the first for all that it can run.
        input: its only input.
        classes: how many logits an image has.
        metadata: what the file says about itself.
    """

    path: Path
    asked: str
    available: tuple[str, ...]
    got: tuple[str, ...]
    input: Any
    classes: int
    metadata: dict[str, str]
    _session: ort.InferenceSession

    @property
    def batch(self) -> int | None:
        """Images at a time; None is any number."""
        return self.input.shape[0] if isinstance(self.input.shape[0], int) else None

    @property
    def dtype(self) -> npt.DTypeLike:
        """Of the input."""
        return _INPUTS[self.input.type]

    def run(self, images: Array) -> Array:
        """Logits (n, classes) of images in the file's form, as many as it takes at a time.

        Raises:
            ExportError: ONNX Runtime refuses them or fails, or gives logits of another shape.
        """
        with reading(self.path, ExportError, "ONNX Runtime cannot run it"):
            logits: Array = self._session.run(None, {self.input.name: images})[0]
        if logits.shape != (len(images), self.classes):
            raise ExportError(
                f"{self.path}: logits of shape {logits.shape}, the file says {(len(images), self.classes)}"
            )
        return logits

    def require_finite(self, logits: Array, what: str) -> None:
        """Raise `ExportError` where logits are not numbers that probabilities can be made of."""
        if not np.isfinite(logits).all():
            raise ExportError(f"{self.path}: its logits of {what} are not finite numbers")

    def run_all(self, images: Array, batch: int) -> Array:
        """Logits of any number of images, ``batch`` at a time, or as many as the file is fixed to.

        A fixed batch that is not full is filled up with its last image.
        """
        batch = self.batch or batch
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            missing = batch - len(part) if self.batch else 0
            filled = np.concatenate([part, part[-1:].repeat(missing, axis=0)]) if missing else part
            parts.append(self.run(filled)[: len(part)])
        return np.concatenate(parts)


def open_session(path: Path, provider: str = "auto", threads: int = 0) -> Session:
    """Load a file.

    Args:
        path: of the file.
        provider: a key of `PROVIDERS`, or auto: CUDA where there is one, else the CPU. TensorRT must be asked
            for by name: it takes minutes to build its engine.
        threads: of the CPU; 0 is one a core.

    Raises:
        ExportError: no such file, no model of images and logits, or a provider that is not there or does
            not start.
    """
    available = tuple(ort.get_available_providers())
    wanted = [name for name in _wanted(provider, available) if name in available]
    if not path.is_file():
        raise ExportError(f"{path}: no such file, expected an ONNX model")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _QUIET
    with reading(path, ExportError, "ONNX Runtime cannot load it"):
        session = ort.InferenceSession(path, options, providers=wanted)
        got = tuple(session.get_providers())
        inputs, outputs = session.get_inputs(), session.get_outputs()
        metadata = session.get_modelmeta().custom_metadata_map
    if provider != "auto" and got[0] != PROVIDERS[provider]:
        raise ExportError(
            f"provider {provider} did not start on this machine, ONNX Runtime fell back to {' '.join(got)}"
        )
    _check_ends(path, inputs, outputs)
    return Session(path, provider, available, got, inputs[0], outputs[0].shape[1], metadata, session)


def _check_ends(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raise `ExportError` for a file that does not go from a batch of images to logits."""
    ends = [*inputs, *outputs]
    if [len(end.shape) for end in ends] != [4, 2]:
        told = ", ".join(f"{printable(end.name)} {end.shape}" for end in ends[:_NAMED])
        raise ExportError(f"{path}: inputs and outputs are {told}, expected a batch of images and logits")
    if inputs[0].type not in _INPUTS or outputs[0].type != "tensor(float)":
        raise ExportError(
            f"{path}: input {inputs[0].type} and output {outputs[0].type}, "
            f"allowed are {' or '.join(_INPUTS)} and tensor(float)"
        )
    batch, classes = inputs[0].shape[0], outputs[0].shape[1]
    if not isinstance(classes, int) or classes < 1 or (isinstance(batch, int) and batch < 1):
        raise ExportError(
            f"{path}: {batch} images at a time and {classes} classes, allowed are numbers of 1 or more"
        )


def _wanted(provider: str, available: tuple[str, ...]) -> list[str]:
    cpu = PROVIDERS["cpu"]
    if provider == "auto":
        return [PROVIDERS["cuda"], cpu]
    name = PROVIDERS[provider]
    if name not in available:
        raise ExportError(
            f"provider {provider}: this ONNX Runtime has no {name}, available are {' '.join(available)}"
        )
    # What TensorRT does not take runs on CUDA.
    return list(dict.fromkeys([name, *([PROVIDERS["cuda"]] if provider == "tensorrt" else []), cpu]))
