"""Launches and bytes of a training step, counted and not timed: fused kernels beside eager PyTorch.

    python -m pnas_fast.kernel_tools.cost [--dtype bfloat16] [--batch 128] [--cell TEXT]

A step is a child's forward and backward (CIFAR layout, N = 2, F = 24, 32×32), without the optimiser.
Prints what PyTorch's operations and what fused kernels cost by kind, then published cells in one line each.

* An eager operation is counted as `pnas_fast.kernels.operation_cost` says.
* A fused operation is recorded as it would be launched, scratch in device memory written and read.

Bytes are counted twice, by the same rule for both: with each tensor moved once for each pass over it,
and with each tensor moved once by each operation, as though a second pass found it in a cache.
Exits with 1 where the cell, PNASNet-5's unless another is asked for, takes more than 300 launches, or by
either count more than 0.45 of eager's bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pnas_fast.cli.parser import Parser, positive
from pnas_fast.cli.streams import run_command
from pnas_fast.kernels.operation_cost import Cost, CountOperations
from pnas_fast.kernels.triton.launch import Launch, recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell, CellError

CELLS = {
    "PNASNet-5": "0:sep5x5+0:max_pool3x3,1:sep7x7+1:max_pool3x3,1:sep5x5+1:sep3x3,"
    "4:sep3x3+1:max_pool3x3,0:sep3x3+1:identity",
    "NASNet-A normal": "1:sep5x5+0:sep3x3,0:sep5x5+0:sep3x3,1:avg_pool3x3+0:identity,"
    "0:avg_pool3x3+0:avg_pool3x3,1:sep3x3+1:identity",
    "NASNet-A reduction": "1:sep5x5+0:sep7x7,1:max_pool3x3+0:sep7x7,1:avg_pool3x3+0:sep5x5,"
    "3:identity+2:avg_pool3x3,2:sep3x3+1:max_pool3x3",
    "AmoebaNet-A normal": "0:avg_pool3x3+1:max_pool3x3,0:sep3x3+2:sep5x5,0:sep3x3+3:avg_pool3x3,"
    "1:sep3x3+1:identity,0:identity+1:avg_pool3x3",
    "1×7, dilated": "0:conv1x7_7x1+1:dil_conv3x3,2:conv1x7_7x1+1:avg_pool3x3,2:dil_conv3x3+0:identity,"
    "1:conv1x7_7x1+3:sep3x3,4:dil_conv3x3+0:max_pool3x3",
}
"""Published cells whose operations are this space's, all blocks concatenated and every cell of a child
alike, as this space has it; and one of the operations that those lack."""

MOST_LAUNCHES = 300
MOST_BYTES = 0.45
"""Of eager's."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def eager_cost(cell: Cell, filters: int, batch: int, dtype: torch.dtype) -> dict[str, Cost]:
    """Of a step of plain PyTorch by operation, activations and weights of one type."""
    with torch.device("meta"):
        network = ChildNetwork(cell, 2, filters, 10, (3, 32, 32)).to(dtype)
        images = torch.empty(batch, 3, 32, 32, dtype=dtype)
        with CountOperations() as counted:
            _step(network, images)
    kinds: dict[str, Cost] = counted.kinds
    return kinds


def fused_launches(
    cell: Cell,
    filters: int,
    batch: int,
    dtype: torch.dtype,
    capability: int = 90,
    *,
    repeats: int = 2,
    image: tuple[int, int, int] = (3, 32, 32),
) -> tuple[list[Launch], Cost]:
    """The Triton launches of a step, and the cost of what PyTorch adds to them: the classifier."""
    network = ChildNetwork(cell, repeats, filters, 10, image, backend="triton")
    network.arrange()
    network.classifier.to(dtype)
    images = torch.empty(batch, *image, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with recording(capability=capability) as launches, CountOperations() as counted:
        _step(network, images)
    return launches, total(counted.kinds)


def fused_cost(cell: Cell, filters: int, batch: int, dtype: torch.dtype) -> dict[str, Cost]:
    """Of a step of Triton kernels by kernel, weights fp32."""
    launches, rest = fused_launches(cell, filters, batch, dtype)
    kinds: dict[str, Cost] = {}
    for launch in launches:
        name = launch.kernel.__name__.removesuffix("_kernel")
        kinds[name] = kinds.get(name, Cost()).plus(launch.cost)
    return kinds | {"PyTorch": rest}


def total(kinds: dict[str, Cost]) -> Cost:
    """Of all kinds together."""
    return Cost(*map(sum, zip(*kinds.values(), strict=True))) if kinds else Cost()


def _step(network: ChildNetwork, images: torch.Tensor) -> None:
    network(images).sum().backward()


class Card(NamedTuple):
    """What a card does at most in a second: bytes, multiply-adds of matrix units and of fp32 units."""

    bytes: float
    products: float
    taps: float

    def least_seconds(self, launch: Launch) -> float:
        """The roofline: no kernel that keeps nothing between launches does a launch's work sooner."""
        return max(launch.cost.once / self.bytes, launch.products / self.products, launch.taps / self.taps)


H100 = Card(bytes=3.0e12, products=400e12, taps=33e12)
"""As published, for bf16; a copy reaches 3.0 TB/s."""


def _kinds_table(title: str, kinds: dict[str, Cost]) -> str:
    rows = sorted(kinds.items(), key=lambda row: -row[1].bytes)
    rows.append((title, total(kinds)))
    return "\n".join(
        f"{name:34} {cost.launches:6} launches {cost.bytes / 1e9:8.3f} GB, once {cost.once / 1e9:8.3f} GB"
        for name, cost in rows
    )


def _roofline(launches: list[Launch]) -> str:
    products, taps = (sum(getattr(launch, key) for launch in launches) for key in ("products", "taps"))
    least = sum(map(H100.least_seconds, launches))
    return (
        f"{products / 1e9:.1f} G products, {taps / 1e9:.1f} G depthwise taps: "
        f"at least {least * 1e6:.0f} µs on an H100, launch after launch"
    )


class Comparison(NamedTuple):
    """Fused beside eager."""

    fused: Cost
    eager: Cost

    @property
    def shares(self) -> tuple[float, float]:
        """Fused bytes over eager's, by passes and by tensors."""
        return self.fused.bytes / self.eager.bytes, self.fused.once / self.eager.once

    @property
    def within(self) -> bool:
        """Whether the limits are kept."""
        return self.fused.launches <= MOST_LAUNCHES and max(self.shares) <= MOST_BYTES

    def line(self) -> str:
        """One line."""
        fused, eager, (passes, once) = self.fused, self.eager, self.shares
        return (
            f"{fused.launches} launches (eager {eager.launches:,}), "
            f"{fused.bytes / 1e9:.2f} GB (eager {eager.bytes / 1e9:.2f}, {passes:.3f} of it), "
            f"once {fused.once / 1e9:.2f} GB (eager {eager.once / 1e9:.2f}, {once:.3f} of it)"
        )


def cell_text(text: str) -> str:
    """A cell's text, checked, as the type of an option."""
    try:
        return str(Cell.parse(text))
    except CellError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 where a rule is broken."""
    parser = Parser(prog="python -m pnas_fast.kernel_tools.cost", description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of activations")
    parser.add_argument("--batch", type=positive, default=128, help="images")
    parser.add_argument("--filters", type=positive, default=24, help="F")
    parser.add_argument("--cell", type=cell_text, help="a cell as text, instead of the published ones")
    options = parser.parse_args(arguments)
    size = options.filters, options.batch, DTYPES[options.dtype]
    cells = CELLS if options.cell is None else {options.cell: options.cell}
    first = Cell.parse(next(iter(cells.values())))
    eager, fused = eager_cost(first, *size), fused_cost(first, *size)
    print(_kinds_table("eager", eager), _kinds_table("fused", fused), sep="\n\n", end="\n\n")
    print(_roofline(fused_launches(first, *size)[0]), end="\n\n")
    found = {next(iter(cells)): Comparison(total(fused), total(eager))}
    for name, text in list(cells.items())[1:]:
        cell = Cell.parse(text)
        found[name] = Comparison(total(fused_cost(cell, *size)), total(eager_cost(cell, *size)))
    for name, comparison in found.items():
        print(f"{name}: {comparison.line()}")
    name, judged = next(iter(found.items()))
    print(
        f"{name} in {options.dtype}: {judged.fused.launches} launches (allowed {MOST_LAUNCHES}), "
        f"{max(judged.shares):.3f} of eager's bytes (allowed {MOST_BYTES}): "
        f"{'within' if judged.within else 'BEYOND'} the limits"
    )
    return 0 if judged.within else 1


if __name__ == "__main__":
    sys.exit(main())
