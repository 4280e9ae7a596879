"""Launches and bytes of a training step, counted and not timed: fused kernels beside eager PyTorch.

    python -m pnas_fast.kernels.cost [--dtype bfloat16] [--batch 128] [--cell TEXT]

A step is a child's forward and backward (CIFAR layout, N = 2, F = 24, 32×32), without the optimiser.

* An eager operation is a launch, a convolution's backward two; views and allocations are none. It reads
  its arguments and writes its results once, except that batch norm reads its input twice, for
  statistics and for use, forward and backward.
* A fused operation is recorded as it would be launched. It moves each tensor once for each pass over it,
  scratch in device memory among them.

Exits with 1 where the PNASNet-5 cell takes more than 300 launches or more than 0.45 of eager's bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pnas_fast.kernels.triton.launch import Launch, recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell

CELLS = {
    "PNASNet-5": "0:sep5x5+0:max_pool3x3,1:sep7x7+1:max_pool3x3,1:sep5x5+1:sep3x3,"
    "4:sep3x3+1:max_pool3x3,0:sep3x3+1:identity"
}
"""Published cells by name."""

MOST_LAUNCHES = 300
MOST_BYTES = 0.45
"""Of eager's."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Cost(NamedTuple):
    """Of a training step."""

    launches: int
    bytes: int


class CountOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what PyTorch's own operations launch and move."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Any = None
    ) -> Any:
        """Run an operation and add its cost."""
        result = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        if function.is_view or name.startswith(("empty", "new_empty", "detach", "set_")):
            return result
        inputs = list(_tensors((arguments, keywords)))
        outputs = list(_tensors(result))
        if name == "convolution_backward":
            g, x, weight = inputs[:3]
            for wanted, other in zip(arguments[-1][:2], (weight, x), strict=True):
                self._add(wanted, g, other, x if other is weight else weight)
        elif "batch_norm" in name:
            self._add(1, *inputs, *inputs[: 2 if "backward" in name else 1], *outputs)
        else:
            self._add(1, *inputs, *(output for output in outputs if not _among(output, inputs)))
        return result

    def _add(self, launches: int, *tensors: Tensor) -> None:
        self.launches += launches
        self.bytes += launches * sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _among(tensor: Tensor, tensors: list[Tensor]) -> bool:
    return any(tensor is other for other in tensors)


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def eager_cost(cell: Cell, filters: int, batch: int, dtype: torch.dtype) -> Cost:
    """Of a step of plain PyTorch, activations and weights of one type."""
    with torch.device("meta"):
        network = ChildNetwork(cell, 2, filters, 10, (3, 32, 32)).to(dtype)
        images = torch.empty(batch, 3, 32, 32, dtype=dtype)
        with CountOperations() as counted:
            _step(network, images)
    return Cost(counted.launches, counted.bytes)


def fused_launches(
    cell: Cell, filters: int, batch: int, dtype: torch.dtype, capability: int = 90
) -> tuple[list[Launch], Cost]:
    """The Triton launches of a step, and the cost of what PyTorch adds to them: the classifier."""
    network = ChildNetwork(cell, 2, filters, 10, (3, 32, 32), backend="triton")
    network.classifier.to(dtype)
    images = torch.empty(batch, 3, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with recording(capability=capability) as launches, CountOperations() as counted:
        _step(network, images)
    return launches, Cost(counted.launches, counted.bytes)


def fused_cost(cell: Cell, filters: int, batch: int, dtype: torch.dtype) -> Cost:
    """Of a step of Triton kernels, weights fp32."""
    launches, rest = fused_launches(cell, filters, batch, dtype)
    return Cost(len(launches) + rest.launches, sum(launch.bytes for launch in launches) + rest.bytes)


def _step(network: ChildNetwork, images: Tensor) -> None:
    network(images).sum().backward()


class Card(NamedTuple):
    """What a card does at most in a second: bytes, multiply-adds of matrix units and of fp32 units."""

    bytes: float
    products: float
    taps: float

    def least_seconds(self, launch: Launch) -> float:
        """The roofline: no kernel can do the work of a launch sooner."""
        return max(launch.bytes / self.bytes, launch.products / self.products, launch.taps / self.taps)


H100 = Card(bytes=3.0e12, products=400e12, taps=33e12)
"""As published, for bf16; a copy reaches 3.0 TB/s."""


def _table(launches: list[Launch]) -> str:
    kinds: dict[str, list[Launch]] = {}
    for launch in launches:
        kinds.setdefault(launch.kernel.__name__.removesuffix("_kernel"), []).append(launch)
    rows = []
    for name, group in kinds.items():
        moved, products, taps = (sum(getattr(x, key) for x in group) for key in ("bytes", "products", "taps"))
        least = sum(map(H100.least_seconds, group))
        rows.append(
            f"{name:20} {len(group):5} launches {moved / 1e9:7.3f} GB {products / 1e9:8.1f} G products "
            f"{taps / 1e9:6.1f} G taps, at least {least * 1e6:6.0f} µs on an H100"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a rule is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m pnas_fast.kernels.cost", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of activations")
    parser.add_argument("--batch", type=int, default=128, help="images")
    parser.add_argument("--filters", type=int, default=24, help="F")
    parser.add_argument("--cell", default=CELLS["PNASNet-5"], help="a cell as text; PNASNet-5's")
    options = parser.parse_args(arguments)
    case = Cell.parse(options.cell), options.filters, options.batch, DTYPES[options.dtype]
    eager, (launches, rest) = eager_cost(*case), fused_launches(*case)
    fused = Cost(len(launches) + rest.launches, sum(launch.bytes for launch in launches) + rest.bytes)
    print(_table(launches))
    print(f"{'PyTorch':20} {rest.launches:5} launches {rest.bytes / 1e9:7.3f} GB")
    share = fused.bytes / eager.bytes
    kept = fused.launches <= MOST_LAUNCHES and share <= MOST_BYTES
    print(
        f"fused {fused.launches} launches (eager {eager.launches}, allowed {MOST_LAUNCHES}), "
        f"{fused.bytes / 1e9:.2f} GB (eager {eager.bytes / 1e9:.2f}): {share:.3f} of its bytes "
        f"(allowed {MOST_BYTES}) in {options.dtype}: {'within' if kept else 'BEYOND'} the limits"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
