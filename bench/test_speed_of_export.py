"""Exported networks in ONNX Runtime beside channels_last eager PyTorch, and how long an export takes.

A group is one network and one image on the same number of threads. Processes that share the cores hold up the
parts of an operation that wait for each other: compare the groups' tables only on a machine that does nothing
else, or with `THREADS` at 1. Weights are random, so int8 here is about time alone.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pnas_fast.export.exporting import export_model
from pnas_fast.export.images import as_input
from pnas_fast.export.model_file import Form, build
from pnas_fast.export.quantise import quantise
from pnas_fast.export.sessions import open_session
from pnas_fast.export.subject import Subject, model_subject
from pnas_fast.threads import torch_threads

THREADS = 2
NAMES = ("pnasnet5_mobile", "pnasnet5_large")

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@cache
def subject_of(name: str) -> Subject:
    torch.manual_seed(0)
    subject = model_subject(name)
    subject.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return subject


def noise(subject: Subject, count: int = 1) -> Pixels:
    images = subject.images
    shape = (count, images.height, images.width, images.channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("form", ["eager", "fp32", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_one_image(benchmark: Any, tmp_path: Path, name: str, form: str) -> None:
    benchmark.group = f"{name}, one image, {THREADS} threads"
    subject = subject_of(name)
    inputs = as_input(noise(subject), subject.images, np.float32)
    if form == "eager":
        images = torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last)
        with torch_threads(THREADS), torch.inference_mode():
            benchmark.pedantic(subject.network, (images,), rounds=10, warmup_rounds=2)
        return
    model = build(subject.network, subject.images, Form())
    if form == "int8":
        model = quantise(model, as_input(noise(subject, 4), subject.images, np.float32), tmp_path)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    session = open_session(path, "cpu", THREADS)
    benchmark.extra_info["megabytes"] = path.stat().st_size / 1e6
    benchmark.pedantic(session.run, (inputs,), rounds=10, warmup_rounds=2)


@pytest.mark.parametrize("name", NAMES)
def test_loading(benchmark: Any, tmp_path: Path, name: str) -> None:
    benchmark.group = f"{name}, loading"
    subject = subject_of(name)
    onnx.save(build(subject.network, subject.images, Form()), tmp_path / "model.onnx")
    benchmark.pedantic(open_session, (tmp_path / "model.onnx", "cpu", THREADS), rounds=3)


@pytest.mark.parametrize("name", NAMES)
def test_exporting(benchmark: Any, tmp_path: Path, name: str) -> None:
    """All of it: building the network, writing, every check."""
    benchmark.group = f"{name}, exporting"
    with torch_threads(THREADS):
        benchmark.pedantic(
            lambda: export_model(model_subject(name), tmp_path / "model.onnx", Form()), rounds=1
        )
