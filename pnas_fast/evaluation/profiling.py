"""A trace of one child, for Chrome's chrome://tracing or https://ui.perfetto.dev."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from pnas_fast.data import DataSet
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.child import train_child
from pnas_fast.files import replacing
from pnas_fast.space import Cell

STEPS = 12
"""A whole child would be gigabytes."""


def trace_file(folder: Path, position: int) -> Path:
    """Where a run keeps the trace of the child at a position."""
    return folder / f"trace-{position}.json"


def write_trace(cell: Cell, settings: TrainingSettings, data: DataSet, seed: int, path: Path) -> None:
    """Train a cell's child for `STEPS` steps and evaluate it, and write what ran when.

    The child is built for this alone, so that the one that counts is trained as though nothing had been.
    On the compiled CPU kernels the first two steps show operations by name; later ones are replays.
    """
    part = data.subset(min(STEPS * settings.batch, len(data.train_labels)))
    activities = [ProfilerActivity.CPU]
    if data.train_images.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        train_child(cell, replace(settings, epochs=1), part, seed)
    with replacing(path) as temporary:
        profiler.export_chrome_trace(str(temporary))
