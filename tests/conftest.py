"""How tests run: on how many threads, on the card or in Triton's interpreter, from which random numbers."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Where tests run on every core, threads of one wait in loops for threads of others: 20 times as long.
    # Before anything imports PyTorch.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from pnas_fast.executors import fork_server
from pnas_fast.surrogate import ensemble
from pnas_fast.surrogate.fitting import Schedule

HAS_CARD = torch.cuda.is_available()
if not HAS_CARD:
    # Before anything imports Triton. With a card, its kernels are compiled and the same tests run there.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A busy machine is slow, not wrong. A failing example comes with the line that repeats it.
settings.register_profile("pnas_fast", deadline=None, print_blob=True)
settings.load_profile("pnas_fast")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """A test, or what it calls, leaves no environment variable to the tests and processes after it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surrogates that are fitted in no time and predict little: for what does not depend on how well."""
    for name in ("FRESH", "FINETUNE"):
        monkeypatch.setattr(ensemble, name, Schedule(steps=10, batch=64, learning_rate=0.01))


@pytest.fixture(scope="module")
def warm_workers() -> Iterator[None]:
    """One fork server for all searches of a module, as a program has that searches again and again."""
    if fork_server.AVAILABLE:
        fork_server.fork_server("pnas_fast.executors.worker")
    yield
    fork_server.end_servers()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why."""
    for item in items:
        if why := _cannot_run(item):
            item.add_marker(pytest.mark.skip(reason=why))


def _cannot_run(item: pytest.Item) -> str | None:
    if item.get_closest_marker("gpu") and not HAS_CARD:
        return "needs a CUDA GPU; torch.cuda.is_available() is False"
    if item.get_closest_marker("gpu") and _interpreted():
        return "needs compiled kernels; TRITON_INTERPRET is set"
    if item.get_closest_marker("interpreter") and not _interpreted():
        return "needs Triton's interpreter; TRITON_INTERPRET=1 turns it on"
    return None


def _interpreted() -> bool:
    from where_triton_runs import INTERPRETED

    return bool(INTERPRETED)
