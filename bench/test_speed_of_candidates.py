"""Time of candidate expansion, beside plain Python doing the same work.

Each case's extra information holds the candidates made and the nanoseconds for each, so that the
`expand` cases from 10^5 to 10^7 candidates show the curve.
"""

import itertools
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pnas_fast.candidates import canonical_keys, count_distinct, expand, expand_batches, one_block_cells
from pnas_fast.counting import _fixed
from pnas_fast.space import Cell

Codes = npt.NDArray[np.int8]


def random_cells(count: int, blocks: int) -> Codes:
    limits = [[2 + block, 8] * 2 for block in range(blocks)]
    return np.random.default_rng(blocks).integers(0, limits, (count, blocks, 4), dtype=np.int8)


def two_block_cells(count: int) -> Codes:
    cells = expand(one_block_cells()).codes
    return np.random.default_rng(2).permutation(cells)[:count]


def plain_expand(codes: Codes) -> list[Cell]:
    """Expansion with one object for each candidate and a set of canonical forms."""
    sides = list(itertools.product(range(2 + codes.shape[1]), range(8)))
    seen: set[Cell] = set()
    kept = []
    for parent in codes.tolist():
        for first, second in itertools.combinations_with_replacement(sides, 2):
            cell = Cell.from_codes([*parent, [*first, *second]])
            form = cell.canonical()
            if form not in seen:
                seen.add(form)
                kept.append(cell)
    return kept


def note(benchmark: Any, candidates: int) -> None:
    benchmark.extra_info["candidates"] = candidates
    if benchmark.stats is not None:
        benchmark.extra_info["ns_each"] = round(1e9 * benchmark.stats.stats.median / candidates, 2)


@pytest.mark.benchmark(group="256 four-block cells to five blocks")
def test_expand_four_block_cells(benchmark: Any) -> None:
    found = benchmark(expand, random_cells(256, 4))
    note(benchmark, len(found.parent))


@pytest.mark.benchmark(group="256 two-block cells to three blocks")
def test_expand_two_block_cells(benchmark: Any) -> None:
    found = benchmark(expand, two_block_cells(256))
    note(benchmark, len(found.parent))


@pytest.mark.benchmark(group="plain Python beside the engine: 4 parents")
@pytest.mark.parametrize("blocks", [2, 4])
@pytest.mark.parametrize("way", ["plain", "engine"])
def test_few_parents(benchmark: Any, way: str, blocks: int) -> None:
    codes = random_cells(4, blocks)
    if way == "plain":
        found = len(benchmark.pedantic(plain_expand, (codes,), rounds=2))
    else:
        found = len(benchmark(expand, codes).parent)
    assert found == len(expand(codes).parent)
    note(benchmark, found)


@pytest.mark.benchmark(group="every two-block cell to three blocks")
def test_expand_exhaustively(benchmark: Any) -> None:
    found = benchmark.pedantic(expand, (two_block_cells(31_620),), rounds=3)
    assert len(found.parent) == 10_979_688
    note(benchmark, len(found.parent))


@pytest.mark.benchmark(group="growth, four-block cells to five blocks")
@pytest.mark.parametrize("parents", [85, 270, 850, 2_700, 8_500])
def test_growth(benchmark: Any, parents: int) -> None:
    found = benchmark.pedantic(expand, (random_cells(parents, 4),), rounds=5, warmup_rounds=1)
    note(benchmark, len(found.parent))


@pytest.mark.benchmark(group="canonical keys of five-block cells")
@pytest.mark.parametrize("cells", [10**4, 10**5, 10**6])
def test_canonical_keys(benchmark: Any, cells: int) -> None:
    benchmark.pedantic(canonical_keys, (random_cells(cells, 5),), rounds=3, warmup_rounds=1)
    note(benchmark, cells)


@pytest.mark.benchmark(group="canonical keys of five-block cells")
@pytest.mark.parametrize("cells", [10**3, 10**4])
def test_canonical_forms_in_plain_python(benchmark: Any, cells: int) -> None:
    objects = [Cell.from_codes(codes) for codes in random_cells(cells, 5)]
    benchmark.pedantic(lambda: [cell.canonical() for cell in objects], rounds=1)
    note(benchmark, cells)


@pytest.mark.benchmark(group="counting distinct cells")
@pytest.mark.parametrize("blocks", [3, 5])
def test_count_distinct(benchmark: Any, blocks: int) -> None:
    def count() -> int:
        _fixed.cache_clear()
        return count_distinct(blocks)

    assert benchmark(count) == {3: 10_979_688, 5: 3_147_356_952_080}[blocks]


@pytest.mark.benchmark(group="counting distinct cells")
def test_count_by_listing_three_blocks(benchmark: Any) -> None:
    def count() -> int:
        return len(expand(expand(one_block_cells()).codes).codes)

    assert benchmark.pedantic(count, rounds=1) == count_distinct(3)


def stream(parents: int) -> tuple[int, float]:
    """Candidates streamed, and the most memory this process has had, in MB (Linux)."""
    total = sum(len(part.parent) for part in expand_batches(random_cells(parents, 4)))
    # Not getrusage: its maximum comes along from the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return total, int(peak[1]) / 1e3


def stream_in_a_fresh_process(parents: int) -> tuple[int, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(stream, parents).result()


@pytest.mark.benchmark(group="streaming, with start of a process")
@pytest.mark.parametrize("parents", [850, 85_000])
def test_streaming(benchmark: Any, parents: int) -> None:
    total, megabytes = benchmark.pedantic(stream_in_a_fresh_process, (parents,), rounds=1)
    assert megabytes < 1.5 * stream_in_a_fresh_process(850)[1]
    benchmark.extra_info["peak_MB"] = round(megabytes)
    note(benchmark, total)
