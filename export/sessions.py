"""ONNX Runtime sessions: which provider was asked for, which there are, which runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from pnas_fast.export.errors import ExportError
from pnas_fast.export.providers import PROVIDERS

Array = npt.NDArray[Any]

_QUIET = 3
"""ONNX Runtime's level of messages: errors and worse."""


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
        return np.uint8 if self.input.type == "tensor(uint8)" else np.float32

    def run(self, images: Array) -> Array:
        """Logits (n, classes) of images in the file's form, as many as it takes at a time."""
        logits: Array = self._session.run(None, {self.input.name: images})[0]
        return logits

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
        ExportError: no such file, no model, or a provider that is not there or does not start.
    """
    available = tuple(ort.get_available_providers())
    wanted = [name for name in _wanted(provider, available) if name in available]
    if not path.is_file():
        raise ExportError(f"{path}: no such file, expected an ONNX model")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _QUIET
    try:
        session = ort.InferenceSession(path, options, providers=wanted)
    except Exception as error:  # ONNX Runtime's own errors have no common class
        raise ExportError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)})") from error
    got = tuple(session.get_providers())
    if provider != "auto" and got[0] != PROVIDERS[provider]:
        raise ExportError(
            f"provider {provider} did not start on this machine, ONNX Runtime fell back to {' '.join(got)}"
        )
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [len(item.shape) for item in (*inputs, *outputs)] != [4, 2]:
        names = [item.name for item in (*inputs, *outputs)]
        raise ExportError(f"{path}: inputs and outputs are {names}, expected a batch of images and logits")
    metadata = session.get_modelmeta().custom_metadata_map
    return Session(path, provider, available, got, inputs[0], outputs[0].shape[1], metadata, session)


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


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
