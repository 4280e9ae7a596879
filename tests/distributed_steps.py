"""A few steps of a long training, and one normalised convolution, alone or as one of torchrun's processes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import conftest  # noqa: F401 (before Triton)
from oracle import activation, new_norm, run
from pnas_fast.data import load
from pnas_fast.kernels import BACKENDS as EVERY_BACKEND
from pnas_fast.kernels import Backend, CellOutput, Side, get_backend
from pnas_fast.kernels.shared_norm import SharedBatchNorm2d
from pnas_fast.train import training as training_module
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group, joined
from pnas_fast.train.network import build
from pnas_fast.train.training import LongTraining
from where_triton_runs import DEVICE

BACKENDS = ("eager", "cpu")
STEPS = 4
CONFIG = TrainConfig(
    cell="0:sep3x3+1:max_pool3x3,1:dil_conv3x3+2:avg_pool3x3",
    data="synthetic:12x12x3/10",
    train_images=64,
    repeats=1,
    filters=4,
    epochs=2,
    batch=16,
    learning_rate=0.1,
    cutout=4,
    ema=0.9,
    clip=1.0,
    label_smoothing=0.1,
    class_weights="balanced",
    device="cpu",
    threads=1,
)


def steps(group: Group, backend: str) -> dict[str, Tensor]:
    """Everything that changed, and each step's loss over all processes; in fp64 by the eager backend."""
    config = replace(CONFIG, backend=backend).resolved()
    made = (lambda *given: build(*given).double()) if backend == "eager" else build
    training_module.build = made  # type: ignore[attr-defined]
    training = LongTraining(config, load(config.data).subset(config.train_images), group)
    if backend == "eager":
        training.network.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
    losses = []
    for index in range(STEPS):
        training.step(1, index)  # of the second epoch, where drop-path is at work
        losses.append(group.sum(training.losses) / group.size)
    return training.tensors() | {"losses": torch.stack(losses)}


def normalised(group: Group, backend: str) -> dict[str, Tensor]:
    """Two convolutions with batch norms that are alike, added: each process's share, gradients over all."""
    torch.manual_seed(0)
    sources = [activation(4, 3, 5, 5) for _ in range(2)]
    weights = [torch.randn(4, 3, 1, 1) for _ in range(2)]
    norm, other, upstream = new_norm(4), new_norm(4), activation(4, 4, 5, 5)
    device = DEVICE if backend == "triton" else "cpu"
    if group.size > 1:
        norm, other = SharedBatchNorm2d.of(norm), SharedBatchNorm2d.of(other)
    norm, other = norm.to(device), other.to(device)

    def operation(kernels: Backend[Any], sources: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
        norms = norm, other
        states = [kernels.convolution(*given) for given in zip(sources, weights, norms, strict=True)]
        output = CellOutput(1)
        return kernels.concatenate([kernels.add(Side(states[0]), Side(states[1]), output, 0)], output)

    mine = slice(group.rank, None, group.size)
    parts = [source[mine].to(device) for source in sources]
    weights = [weight.to(device) for weight in weights]
    done = run(get_backend(backend), operation, parts, weights, norm, upstream[mine].to(device))
    gradients = {name: g for name, g in done.gradients.items() if g is not None}
    own = {name: g for name, g in gradients.items() if name.startswith("source")} | {"out": done.out}
    every = {name: g for name, g in gradients.items() if name not in own}
    group.average(list(every.values()))
    every = {name: g * group.size for name, g in every.items()}
    return {name: tensor.cpu() for name, tensor in (every | own | done.statistics).items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as group:
        for backend in BACKENDS:
            result = {name: tensor.contiguous() for name, tensor in steps(group, backend).items()}
            if group.leads:
                save_file(result, Path(sys.argv[1]) / f"{backend}.safetensors")
        for backend in EVERY_BACKEND:
            result = {name: tensor.contiguous() for name, tensor in normalised(group, backend).items()}
            if group.leads:
                save_file(result, Path(sys.argv[1]) / f"norm-{backend}.safetensors")
