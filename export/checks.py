"""Whether a file computes what its network does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from onnx import checker, shape_inference
from torch import nn

from pnas_fast.export.errors import ExportError
from pnas_fast.export.graph import LARGEST_HALF
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.images import Pixels, as_input
from pnas_fast.export.model_file import Precision

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}
"""How far logits may be from PyTorch's in float32: the norm of the difference over the norm of PyTorch's."""

RANDOM_BATCHES = (1, 2)
"""Images at a time of the check on random images; a file of a fixed batch fills its own."""

_BATCH = 64

Logits = npt.NDArray[np.float32]


class Runner(Protocol):
    """What computes the logits of an exported file."""

    @property
    def dtype(self) -> npt.DTypeLike:
        """Of its input: uint8 is pixels as decoded, float32 normalised images."""

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits of images, as many as it takes at a time."""

    def run_all(self, images: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
        """Logits of any number of images, ``batch`` at a time where that is free."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Logits of a file beside PyTorch's.

    Attributes:
        images: how many.
        error: the norm of the difference over the norm of PyTorch's.
        agreement: the share of images with the same first class.
        theirs: the file's logits, (images, classes).
        ours: PyTorch's.
    """

    images: int
    error: float
    agreement: float
    theirs: Logits
    ours: Logits


def check_structure(path: Path) -> None:
    """ONNX's own checks of a file: every node's form, and that shapes can be inferred and agree.

    Raises:
        ExportError: a check fails.
    """
    try:
        checker.check_model(path, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        raise ExportError(f"the model fails ONNX's checks: {' '.join(str(error).split())[:300]}") from error


def compare(network: nn.Module, session: Runner, pixels: Pixels, images: ImageFormat) -> Comparison:
    """Both on the same images, uint8 (n, H, W, C)."""
    ours, theirs = [], []
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            part = pixels[start : start + _BATCH]
            ours.append(network(torch.from_numpy(as_input(part, images, np.float32))).float().numpy())
            theirs.append(session.run_all(as_input(part, images, session.dtype), _BATCH))
    return comparison(np.concatenate(theirs), np.concatenate(ours))


def comparison(theirs: Logits, ours: Logits) -> Comparison:
    """Of two sets of logits, (n, classes) each."""
    norm = float(np.linalg.norm(ours))
    error = float(np.linalg.norm(theirs - ours)) / (norm or 1.0)
    agreement = float((theirs.argmax(axis=1) == ours.argmax(axis=1)).mean())
    return Comparison(len(ours), error, agreement, theirs, ours)


def require_close(found: Comparison, precision: Precision, what: str) -> None:
    """Raise `ExportError` where logits are further from PyTorch's than the precision explains."""
    allowed = TOLERANCES[precision]
    # Written so that NaN fails.
    if not found.error <= allowed:
        raise ExportError(
            f"the file's logits of {found.images} {what} images differ from PyTorch's by "
            f"{found.error:.2g} of their norm, allowed is {allowed:g} in {precision}"
            + _cause(found, precision)
        )


def _cause(found: Comparison, precision: Precision) -> str:
    """Why logits are not numbers; nothing where they are."""
    if not np.isfinite(found.ours).all():
        return "; PyTorch's are not finite themselves"
    if precision == "fp16" and not np.isfinite(found.theirs).all():
        return f"; values beyond {LARGEST_HALF:,} overflow there, fp32 has room for them"
    return ""
