"""What is timed of the CPU kernels: every fused operation forward and backward, and whole training steps.

A case builds the same work for a backend's name. A fused convolution reads a source whose batch norm is
still to be applied, as it does in a cell, and leaves its own to its reader; an eager one reads a plain
tensor and applies its own. So each applies one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pnas_fast.engine import Stepper, TrainingSettings, replayed
from pnas_fast.kernels import Backend, CellOutput, PoolKind, Side, get_backend
from pnas_fast.kernels.activation import Activation
from pnas_fast.network import ChildNetwork
from pnas_fast.network.layers import Convolution, FactorizedReduction, Layer, SeparableHalf, Shape
from pnas_fast.space import Cell

PNASNET5 = Cell.parse(
    "0:sep5x5+0:max_pool3x3,1:sep7x7+1:max_pool3x3,1:sep5x5+1:sep3x3,"
    "4:sep3x3+1:max_pool3x3,0:sep3x3+1:identity"
)
BATCH = 64
STAGES = (Shape(24, 32, 32), Shape(48, 16, 16), Shape(96, 8, 8))

Work = Callable[[], object]
MakeLayer = Callable[[Backend[Any], Shape, int], Layer]
"""From a backend, the shape of a stage and a stride."""


class Case(NamedTuple):
    """Work to time on each backend.

    Attributes:
        name: of the work.
        threads: that torch has while it is done.
        build: the work, from a backend's name.
    """

    name: str
    threads: int
    build: Callable[[str], Work]


class Source(NamedTuple):
    """What an operation reads, and the leaves that a gradient is wanted of."""

    state: Callable[[], Any]
    leaves: list[Tensor]


def separable(kernel: int, dilation: int = 1) -> MakeLayer:
    return lambda backend, stage, stride: SeparableHalf(
        backend, stage, stage.channels, kernel=kernel, stride=stride, dilation=dilation
    )


def row(backend: Backend[Any], stage: Shape, stride: int) -> Layer:
    return Convolution(backend, stage, stage.channels, kernel=(1, 7), stride=(1, stride), normalise=False)


def column(backend: Backend[Any], stage: Shape, stride: int) -> Layer:
    return Convolution(backend, stage, stage.channels, kernel=(7, 1), stride=(stride, 1), rectify=False)


def pointwise(backend: Backend[Any], stage: Shape, stride: int) -> Layer:
    return Convolution(backend, stage, stage.channels, stride=(stride, stride))


def of_five_blocks(stage: Shape) -> Shape:
    return stage._replace(channels=5 * stage.channels)


def align(backend: Backend[Any], stage: Shape, stride: int) -> Layer:
    return Convolution(backend, of_five_blocks(stage), stage.channels)


def reduction(backend: Backend[Any], stage: Shape, stride: int) -> Layer:
    return FactorizedReduction(backend, of_five_blocks(stage), 2 * stage.channels)


LAYERS: dict[str, tuple[MakeLayer, tuple[int, ...]]] = {
    "sep3x3 half": (separable(3), (1, 2)),
    "sep5x5 half": (separable(5), (1, 2)),
    "sep7x7 half": (separable(7), (1, 2)),
    "dil_conv3x3": (separable(3, dilation=2), (1, 2)),
    "conv1x7": (row, (1, 2)),
    "conv7x1": (column, (1, 2)),
    "pointwise F to F": (pointwise, (1, 2)),
    "pointwise 5F to F": (align, (1,)),
    "factorized 5F to 2F": (reduction, (2,)),
}
"""Each with its strides."""

READ_WITHOUT_NORM = {"conv7x1", "pointwise 5F to F", "factorized 5F to 2F"}
"""Layers whose source has no pending batch norm: the 1×7 before, or a cell's output."""


def random_state(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last).requires_grad_()


def new_source(backend: str, shape: Shape, *, pending: bool) -> Source:
    """A state of a shape; on a fused backend its batch norm is ``pending`` or there is none."""
    z = random_state(BATCH, *shape)
    if backend == "eager":
        return Source(lambda: z, [z])
    affine = torch.rand(2, shape.channels).requires_grad_() if pending else None
    return Source(lambda: Activation(z, affine), [z] if affine is None else [z, affine])


def forward_backward(forward: Callable[[], Any], leaves: list[Tensor]) -> Work:
    """The result of a forward and, from a fixed gradient of it, the gradients of leaves."""

    def outputs() -> list[Tensor]:
        out = forward()
        tensors = [out.z, out.affine] if isinstance(out, Activation) else [out]
        return [tensor for tensor in tensors if tensor is not None]

    upstream = [torch.randn_like(tensor) for tensor in outputs()]
    return lambda: torch.autograd.grad(outputs(), leaves, upstream)


def layer_work(title: str, stage: Shape, stride: int, backend: str) -> Work:
    layer = LAYERS[title][0](get_backend(backend), stage, stride)
    shape = of_five_blocks(stage) if "5F" in title else stage
    source = new_source(backend, shape, pending=title not in READ_WITHOUT_NORM)
    return forward_backward(lambda: layer(source.state()), [*source.leaves, *layer.parameters()])


def eager_normalised(shape: Shape) -> Source:
    """A convolution's output whose batch norm, with given statistics, the addition applies."""
    z = random_state(BATCH, *shape)
    scale, shift = (torch.rand(shape.channels).requires_grad_() for _ in range(2))
    mean, variance = torch.zeros(shape.channels), torch.ones(shape.channels)
    return Source(lambda: F.batch_norm(z, mean, variance, scale, shift, eps=0.0), [z, scale, shift])


def add_work(pool: PoolKind | None, stage: Shape, stride: int, backend: str) -> Work:
    """The sum of a convolution's output and of another one, pooled or not, norms of both pending."""

    def side(shape: Shape) -> Source:
        return eager_normalised(shape) if backend == "eager" else new_source(backend, shape, pending=True)

    kernels, pooled, other = get_backend(backend), side(stage), side(stage.strided(stage.channels, stride))

    def add() -> Any:
        return kernels.add(Side(other.state()), Side(pooled.state(), pool, stride), CellOutput(1), 0)

    return forward_backward(add, pooled.leaves + other.leaves)


def step_work(backend: str) -> Work:
    settings = TrainingSettings(learning_rate=0.01)
    torch.manual_seed(0)
    network = ChildNetwork(PNASNET5, 2, 24, 10, (3, 32, 32), backend)
    stepper, images = Stepper(network, settings), torch.randn(BATCH, 3, 32, 32)
    labels = torch.randint(10, (BATCH,))

    def step() -> None:
        stepper.step(images, labels, 0.0)

    return replayed(step, images.device, backend)


def layer_cases() -> Iterator[Case]:
    for title, (_, strides) in LAYERS.items():
        for stage, stride in itertools.product(STAGES, strides):

            def build(backend: str, title: str = title, stage: Shape = stage, stride: int = stride) -> Work:
                return layer_work(title, stage, stride, backend)

            yield Case(_name(title, stage, stride), 1, build)


def add_cases() -> Iterator[Case]:
    pools: list[tuple[PoolKind | None, int]] = [("avg", 1), ("avg", 2), ("max", 1), ("max", 2), (None, 1)]
    for (pool, stride), stage in itertools.product(pools, STAGES):

        def build(
            backend: str, pool: PoolKind | None = pool, stage: Shape = stage, stride: int = stride
        ) -> Work:
            return add_work(pool, stage, stride, backend)

        title = "add norm + norm" if pool is None else f"add norm + {pool}_pool3x3"
        yield Case(_name(title, stage, stride), 1, build)


def _name(title: str, stage: Shape, stride: int) -> str:
    return f"{title}, stride {stride}, {stage.height}x{stage.width}x{stage.channels}"


STEPS = [
    Case("training step, one thread", 1, step_work),
    Case("training step, two threads", 2, step_work),
]
"""Of the PNASNet-5 cell at N = 2, F = 24, 32×32."""

CASES = [*layer_cases(), *add_cases(), *STEPS]
