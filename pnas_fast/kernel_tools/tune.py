"""Times candidate tiles on the card present and writes the table of its generation.

    python -m pnas_fast.kernel_tools.tune

Nothing else tunes: without a table, kernels take the tiles of a rule (`pnas_fast.kernels.triton.tiles`).
For every operation at every stage of a child of the paper's search (F = 24, batch 128, bf16), forward and
backward, each kernel tries each candidate while the others keep theirs. Candidates whose machine code
uses local memory are left out. Another table means other programs, so other rounding.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pnas_fast.cli.parser import Parser
from pnas_fast.cli.streams import run_command
from pnas_fast.kernels import CellOutput, Side, get_backend
from pnas_fast.kernels.triton.aot import variant_of
from pnas_fast.kernels.triton.launch import Tile, capability, recording
from pnas_fast.kernels.triton.tuned_tiles import table_path, trying, write_tiles

CANDIDATES = tuple(Tile(*row) for row in ((8, 128, 2), (8, 255, 1), (4, 128, 4), (4, 168, 3), (4, 255, 2)))
"""Warps, registers, and programs that a multiprocessor then holds."""

WORTH = 0.98
"""A candidate replaces the usual tile where it takes at most this share of its time."""

Problem = Callable[[], None]
Timer = Callable[[Problem, Mapping[str, Tile]], float]
"""Milliseconds of a problem while tiles are tried; infinite where they cannot be used."""


def best(times: Mapping[Tile, float], usual: Tile) -> Tile:
    """The fastest tile, or the usual one where none is faster by more than noise."""
    fastest = min(times, key=lambda tile: times[tile])
    return fastest if times[fastest] <= WORTH * times[usual] else usual


def tune(
    problems: Sequence[Problem], time: Timer, candidates: Sequence[Tile] = CANDIDATES
) -> dict[str, Tile]:
    """The best tile for every key that the problems ask for, by the sum of their times."""
    asked: dict[str, tuple[Tile, list[Problem]]] = {}
    for problem in problems:
        with recording_of_this_card(), trying({}) as answers:
            problem()
        for key, tile in answers.items():
            asked.setdefault(key, (tile, []))[1].append(problem)
    chosen = {}
    for key, (usual, concerned) in asked.items():
        tiles = dict.fromkeys((usual, *candidates))
        times = {tile: sum(time(problem, {key: tile}) for problem in concerned) for tile in tiles}
        chosen[key] = best(times, usual)
    return chosen


def recording_of_this_card() -> Any:
    """Launches as the card present would get them; Hopper's without one."""
    if not torch.cuda.is_available():
        return recording()
    properties = torch.cuda.get_device_properties(0)
    return recording(properties.multi_processor_count, capability(torch.device("cuda", 0)))


def time_on_card(problem: Problem, tiles: Mapping[str, Tile], repeats: int = 20) -> float:
    """Milliseconds of a problem's launches: the median, launched from a CUDA graph."""
    with recording_of_this_card() as launches, trying(tiles):
        problem()
    generation = capability(torch.device("cuda", 0))
    if any(variant_of(launch).compile(generation).local for launch in launches):
        return float("inf")
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with trying(tiles):
        # Compiles, and makes what a graph must not make.
        with torch.cuda.stream(stream):
            problem()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            problem()
    times: list[float] = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def search_problems(device: str, dtype: torch.dtype, batch: int, filters: int) -> Iterator[Problem]:
    """Every operation at the three stages of a child."""
    for stage in range(3):
        f, size = filters << stage, 32 >> stage
        for kernel, stride, dilation in (
            (3, 1, 1),
            (3, 2, 1),
            (5, 1, 1),
            (5, 2, 1),
            (7, 1, 1),
            (7, 2, 1),
            (3, 1, 2),
        ):
            step = {"stride": stride, "dilation": dilation}
            weights = [(f, 1, kernel, kernel), (f, f, 1, 1)]
            yield _problem("separable", f, size, weights, f, step, device, dtype, batch)
        for c, window in ((5 * f, (1, 1)), (f, (1, 7)), (f, (7, 1))):
            yield _problem("convolution", c, size, [(f, c, *window)], f, {}, device, dtype, batch)
        halves = [(f // 2, 5 * f, 1, 1)] * 2
        yield _problem("factorized_reduction", 5 * f, size, halves, f, {}, device, dtype, batch)
        yield _problem("add", f, size, [(f, f, 1, 1)], f, {}, device, dtype, batch)


def _problem(
    operation: str, channels: int, size: int, weights: Sequence[tuple[int, ...]], filters: int,
    step: dict[str, int], device: str, dtype: torch.dtype, batch: int,
) -> Problem:  # fmt: skip
    """One operation forward and backward; an addition is that of a convolution's maximum and its input."""
    backend = get_backend("triton")
    x = torch.randn(batch, channels, size, size, device=device).to(dtype, memory_format=torch.channels_last)
    x.requires_grad_()
    parameters = [torch.randn(shape, device=device, requires_grad=True) for shape in weights]
    norm = nn.BatchNorm2d(filters, device=device)

    def run() -> None:
        if operation == "add":
            output, pending = CellOutput(1), backend.convolution(x, parameters[0], norm)
            state = backend.concatenate([backend.add(Side(pending, "max"), Side(x), output, 0)], output)
        else:
            state = getattr(backend, operation)(x, *parameters, norm, **step)
        out = backend.materialise(state)
        torch.autograd.grad(out, [x, *parameters], torch.ones_like(out))

    return run


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Tune and write; 2 where there is no card."""
    parser = Parser(prog="python -m pnas_fast.kernel_tools.tune", description=(__doc__ or "").split("\n")[0])
    parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("tune: torch.cuda.is_available() is False; needed is a CUDA device", file=sys.stderr)
        return 2
    path = table_path(capability(torch.device("cuda", 0)))
    chosen = tune(list(search_problems("cuda", torch.bfloat16, 128, 24)), time_on_card)
    write_tiles(path, chosen)
    for key, tile in sorted(chosen.items()):
        print(f"{key}: {tile.warps} warps, {tile.registers} registers, {tile.programs} programs")
    print(f"{len(chosen)} tiles for {torch.cuda.get_device_name()}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
