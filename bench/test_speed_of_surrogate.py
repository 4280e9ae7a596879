"""Time of fitting and scoring with the surrogates, beside the plain batched forward on the same work."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pnas_fast.candidates import Candidates, canonical_keys, expand, one_block_cells
from pnas_fast.surrogate import PREDICTORS, Surrogate, TopK, select_top
from pnas_fast.surrogate.ensemble import FINETUNE
from pnas_fast.surrogate.fitting import Trials, fit_members
from pnas_fast.surrogate.lstm import LSTMEnsemble
from pnas_fast.surrogate.mlp import MLPEnsemble
from pnas_fast.threads import torch_threads

Codes = npt.NDArray[np.int8]

PAPER_TRIALS = (136, 256, 256, 256, 256)


def random_cells(count: int, blocks: int) -> Codes:
    limits = [[2 + block, 8] * 2 for block in range(blocks)]
    return np.random.default_rng(blocks).integers(0, limits, (count, blocks, 4), dtype=np.int8)


def candidates(parents: int) -> Candidates:
    return expand(random_cells(parents, 4))


def trials(levels: int) -> tuple[list[Codes], list[npt.NDArray[np.float64]]]:
    rng = np.random.default_rng(0)
    codes = [random_cells(count, level + 1) for level, count in enumerate(PAPER_TRIALS[:levels])]
    worth = rng.normal(size=8)
    accuracies = [1 / (1 + np.exp(-1 - 0.2 * worth[group[:, :, 1::2]].mean((1, 2)))) for group in codes]
    return codes, accuracies


@pytest.fixture(scope="module", params=PREDICTORS)
def surrogate(request: pytest.FixtureRequest) -> Surrogate:
    made = Surrogate(request.param, seed=0)
    codes = one_block_cells()
    made.fit([codes], [np.random.default_rng(0).uniform(0.5, 0.9, len(codes))])
    return made


def note(benchmark: Any, scored: int) -> None:
    benchmark.extra_info["candidates"] = scored
    if benchmark.stats is not None:
        benchmark.extra_info["us_each"] = round(1e6 * benchmark.stats.stats.median / scored, 3)


@pytest.mark.benchmark(group="score five-block candidates, five members")
@pytest.mark.parametrize("parents", [4, 32, 256])
def test_score(benchmark: Any, surrogate: Surrogate, parents: int) -> None:
    batch = candidates(parents)
    benchmark.pedantic(surrogate.score, (batch,), rounds=5, warmup_rounds=1)
    note(benchmark, len(batch.codes))


@pytest.mark.benchmark(group="score five-block candidates, five members")
@pytest.mark.parametrize("parents", [4, 32])
def test_score_plain(benchmark: Any, surrogate: Surrogate, parents: int) -> None:
    codes = candidates(parents).codes
    benchmark.pedantic(surrogate.predict_members, (codes,), rounds=2, warmup_rounds=1)
    note(benchmark, len(codes))


def seconds_each(work: Callable[[], npt.NDArray[np.float64]]) -> float:
    work()
    started = time.perf_counter()
    scored: int = work().shape[1]
    return (time.perf_counter() - started) / scored


@pytest.mark.parametrize("surrogate", ["lstm"], indirect=True)
def test_shared_prefixes_are_20_times_faster_than_plain(surrogate: Surrogate) -> None:
    """A ratio of two times per candidate in one run; the plain forward's time is linear in candidates."""
    batch = candidates(256)
    plain = seconds_each(lambda: surrogate.predict_members(batch.codes[:: len(batch.codes) // 20_000]))
    shared = seconds_each(lambda: surrogate.score(batch))
    print(f"\nplain {1e6 * plain:.1f} us, shared {1e6 * shared:.2f} us each: {plain / shared:.0f} times")
    assert plain / shared >= 20


@pytest.mark.benchmark(group="fit five members")
@pytest.mark.parametrize("refit", ["finetune", "scratch"])
@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_fit_again(benchmark: Any, predictor: str, levels: int, refit: str) -> None:
    codes, accuracies = trials(levels)
    made = Surrogate(predictor, seed=0, refit=refit)
    made.fit(codes[:1], accuracies[:1])
    benchmark.pedantic(made.fit, (codes, accuracies), rounds=1)
    benchmark.extra_info["trials"] = sum(map(len, codes))


@pytest.mark.benchmark(group="fit five members")
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("kind", [MLPEnsemble, LSTMEnsemble])
def test_fit_one_member_after_another(benchmark: Any, kind: type[MLPEnsemble], levels: int) -> None:
    together = Trials.gather(*trials(levels), members=5, seed=0, device="cpu")
    alone = [replace(together, weights=together.weights[member, None]) for member in range(5)]

    def fit() -> None:
        for member, its in enumerate(alone):
            rng = np.random.default_rng(member)
            fit_members(kind(1, rng), its, FINETUNE, rng)

    with torch_threads(1):
        benchmark.pedantic(fit, rounds=1)
    benchmark.extra_info["trials"] = len(together.sizes)


@pytest.mark.benchmark(group="select 256")
@pytest.mark.parametrize("parents", [32, 256])
def test_select_by_sorting(benchmark: Any, parents: int) -> None:
    codes = candidates(parents).codes
    keys = canonical_keys(codes)
    values = np.random.default_rng(0).random(len(codes))
    benchmark.pedantic(lambda: np.lexsort((keys, -values))[:256], rounds=5, warmup_rounds=1)
    note(benchmark, len(codes))


@pytest.mark.benchmark(group="select 256")
@pytest.mark.parametrize("parents", [32, 256])
def test_select(benchmark: Any, parents: int) -> None:
    codes = candidates(parents).codes
    keys = canonical_keys(codes)
    benchmark(select_top, np.random.default_rng(0).random(len(codes)), keys, 256)
    note(benchmark, len(codes))


@pytest.mark.benchmark(group="select 256")
@pytest.mark.parametrize("parents", [32, 256])
def test_select_from_a_stream(benchmark: Any, parents: int) -> None:
    codes = candidates(parents).codes
    values = np.random.default_rng(0).random(len(codes))

    def stream() -> TopK:
        best = TopK(256, blocks=5)
        for start in range(0, len(codes), 1 << 14):
            best.add(codes[start : start + (1 << 14)], values[start : start + (1 << 14)])
        return best

    benchmark(stream)
    note(benchmark, len(codes))
