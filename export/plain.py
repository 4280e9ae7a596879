"""From a network to checked files for PyTorch alone: its source with its weights, or a program."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pnas_fast.export.checks import RANDOM_BATCHES, Logits, Runner
from pnas_fast.export.errors import ExportError
from pnas_fast.export.exporting import Accuracy, Exported, compare_random, compare_real
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.images import read_pixels
from pnas_fast.export.model_file import BATCH, Form, InputType, description
from pnas_fast.export.source import write_source
from pnas_fast.export.subject import Subject
from pnas_fast.files import replacing
from pnas_fast.foreign import reading, silence

DESCRIPTION = "network.json"
"""The name in a program's file of what the file says about itself."""

_MARK = {"written_by": "pnas_fast.export"}
"""Metadata of an exported source's weights, by which the next export knows what it may replace."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModuleRunner:
    """A module as `compare` asks for logits."""

    module: Callable[[Tensor], Tensor]
    dtype: npt.DTypeLike

    def run(self, images: npt.NDArray[Any]) -> Logits:
        """Logits of images in the module's form."""
        with torch.no_grad():
            logits: Logits = self.module(torch.from_numpy(images)).numpy()
        return logits

    def run_all(self, images: npt.NDArray[Any], batch: int) -> Logits:
        """Logits of any number of images, ``batch`` at a time."""
        starts = range(0, len(images), batch)
        return np.concatenate([self.run(images[start : start + batch]) for start in starts])


def export_source(
    subject: Subject,
    path: Path,
    kind: InputType = "float32",
    *,
    pictures: Sequence[Path] = (),
    progress: Progress = lambda step: None,
) -> Exported:
    """Write a network as one Python file of plain PyTorch, and its weights beside it.

    The weights' file has the same name with the ending ``.safetensors``. Both are loaded and compared with
    the network before either appears.

    Args:
        subject: the network, which is left in evaluation mode.
        path: of the Python file.
        kind: float32 takes normalised images, uint8 pixels as decoded.
        pictures: image files to compare on.
        progress: told what is being done.

    Raises:
        ExportError: a check fails, images that are refused, or weights in the way that no export wrote.
        OSError: a file cannot be written.
    """
    started = time.monotonic()
    check = _Check(subject, kind, pictures, progress)
    weights = path.with_suffix(".safetensors")
    _require_replaceable(weights)
    progress("writing the source")
    source = write_source(
        subject.network,
        subject.images,
        raw=kind == "uint8",
        title=subject.title,
        class_names=subject.class_names,
    )
    # The weights are renamed first: a source never stands beside none.
    with replacing(path) as text, replacing(weights) as tensors:
        text.write_text(source.text, encoding="utf-8", newline="\n")
        tensors.write_bytes(save(source.tensors, _MARK))
        loading = time.monotonic()
        module = ModuleType("exported")
        module.__file__ = str(path)
        exec(compile(text.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
        network = module.load(tensors)
        loaded = time.monotonic() - loading
        found = check(network)
        size = text.stat().st_size + tensors.stat().st_size
    return Exported(path, size, loaded, time.monotonic() - started, *found, weights=weights)


def export_program(
    subject: Subject,
    path: Path,
    kind: InputType = "float32",
    *,
    pictures: Sequence[Path] = (),
    progress: Progress = lambda step: None,
) -> Exported:
    """Write a network as a program of ``torch.export``, for any number of images.

    The program is compared with the network before the file appears. It has no example inputs, which would
    be pickled, and so no pickle at all. What an ONNX file says about itself is in its `DESCRIPTION`.

    Args:
        subject: the network, which is left in evaluation mode.
        path: of the file.
        kind: float32 takes normalised images, uint8 pixels as decoded.
        pictures: image files to compare on.
        progress: told what is being done.

    Raises:
        ExportError: a check fails, or images that are refused.
        OSError: the file cannot be written.
    """
    started = time.monotonic()
    check = _Check(subject, kind, pictures, progress)
    progress("tracing the network")
    images = subject.images
    module: nn.Module = subject.network
    example = torch.zeros(2, *images.shape)
    if kind == "uint8":
        module = _Normalising(subject.network, images).eval()
        example = torch.zeros(2, images.height, images.width, images.channels, dtype=torch.uint8)
    any_number = torch.export.Dim(BATCH, min=1)
    with silence():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: any_number},))
        program.example_inputs = None
    random, real, accuracy = check(program.module())
    said = description(
        subject.network,
        images,
        Form("fp32", kind),
        title=subject.title,
        class_names=subject.class_names,
        accuracy=None if accuracy is None else accuracy.described,
    )
    with replacing(path) as temporary:
        progress("writing the program")
        # A file, for of a path PyTorch asks that it end as the format does.
        with silence(), temporary.open("wb") as file:
            torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(said)})
        size = temporary.stat().st_size
    return Exported(path, size, None, time.monotonic() - started, random, real, accuracy)


class _Check:
    """Comparisons with a subject's network; pictures are read at once, before any work."""

    def __init__(
        self, subject: Subject, kind: InputType, pictures: Sequence[Path], progress: Progress
    ) -> None:
        self.subject, self.kind, self.progress = subject, kind, progress
        subject.network.eval()
        subject.images.check_batch(max(RANDOM_BATCHES))
        self.seen = read_pixels(pictures, subject.images) if pictures else None

    def __call__(self, module: Callable[[Tensor], Tensor]) -> tuple[Any, Any, Accuracy | None]:
        """Of a module on random and on real images.

        Raises:
            ExportError: its logits are not the network's.
        """
        self.progress("comparing with the network")
        form = Form("fp32", self.kind)
        runner: Runner = ModuleRunner(module, np.uint8 if self.kind == "uint8" else np.float32)
        random = compare_random(self.subject, runner, form)
        return random, *compare_real(self.subject, runner, form, self.seen)


class _Normalising(nn.Module):
    """A network that takes pixels as decoded, (batch, H, W, C)."""

    def __init__(self, network: nn.Module, images: ImageFormat) -> None:
        super().__init__()
        self.network = network
        for name, levels in (("mean", images.mean), ("std", images.std)):
            self.register_buffer(name, 255 * torch.tensor(levels).view(-1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        levels = pixels.permute(0, 3, 1, 2).float()
        logits: Tensor = self.network((levels - self.mean) / self.std)
        return logits


def _require_replaceable(weights: Path) -> None:
    """Raise `ExportError` where an export would replace a file that is somebody's, such as a run's best."""
    if not weights.exists() and not weights.is_symlink():
        return
    fault = "is in the way of the exported weights and not of an earlier export; choose another --output"
    with reading(weights, ExportError, fault), safe_open(weights, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata != _MARK:
        raise ExportError(f"{weights}: {fault}")
