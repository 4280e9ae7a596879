"""What CONTRIBUTING.md tells to do works, and what it names is there."""

import importlib
import re
from pathlib import Path

import pytest

from made_up import OPERATIONS, KilledError, MadeUp, Shuffled
from pnas_fast.protocols import Event, Finished, Strategy, Trial
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.driver import Driver

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

HILL_CLIMBING = '''
"""Hill climbing: all cells next to the best so far, until none of them is better."""

from pnas_fast.protocols import Proposal
from pnas_fast.space import Cell
from pnas_fast.space.neighbours import neighbours


class HillClimbing:
    """A walk from a cell to the best cell next to it, and on."""

    def __init__(self, start, operations, epochs, budget):
        self.planned = budget
        self._operations, self._epochs = operations, epochs
        self._told, self._best, self._ready = [], None, []
        self._asked = 0
        self._propose([Cell.parse(start)])

    def ask(self):
        """What has become ready."""
        ready, self._ready = self._ready, []
        return ready

    def tell(self, trial):
        """Walk on when the last of a round is told."""
        self._told.append(trial.cell.canonical())
        if trial.done and (self._best is None or trial.order > self._best.order):
            self._best = trial
        if len(self._told) == self._asked and self._best is not None:
            self._propose(neighbours(self._best.cell, self._operations))

    def _propose(self, cells):
        new = [cell for cell in cells if cell not in self._told][: self.planned - self._asked]
        self._asked += len(new)
        self._ready += [Proposal(cell, self._epochs) for cell in new]
'''


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "type[Strategy]":
    """Step 1, in a module that is not ours."""
    (tmp_path / "hill_climbing.py").write_text(HILL_CLIMBING)
    monkeypatch.syspath_prepend(tmp_path)
    found: type[Strategy] = importlib.import_module("hill_climbing").HillClimbing
    return found


def climb(make: "type[Strategy]", budget: int = 60) -> Strategy:
    start = "0:identity+0:max_pool3x3,1:identity+2:identity"
    return make(start, OPERATIONS, 2, budget)  # type: ignore[call-arg]


def drive(path: Path, strategy: Strategy, workers: int, finished: int = 1_000) -> list[Trial]:
    """The trials of a run, made or continued; it is killed after so many measurements."""
    left = [finished]

    def emit(event: Event) -> None:
        left[0] -= isinstance(event, Finished)
        if not left[0]:
            raise KilledError

    with TrialStore(path, write=True) as store:
        executor = Shuffled(workers, seed=workers)
        Driver(strategy, "hill climbing", MadeUp(), executor, store, 0, emit).run()
        return store.trials()


def test_a_strategy_by_these_steps(make: "type[Strategy]", tmp_path: Path) -> None:
    trials = drive(tmp_path / "one.sqlite", climb(make), 1)
    assert 20 < len(trials) <= 60
    assert len({trial.cell.canonical() for trial in trials}) == len(trials)
    assert max(trial.accuracy for trial in trials if trial.done) > trials[0].accuracy
    assert drive(tmp_path / "five.sqlite", climb(make), 5) == trials
    for finished in (3, 9, 11):
        with pytest.raises(KilledError):
            drive(tmp_path / "killed.sqlite", climb(make), 3, finished)
    assert drive(tmp_path / "killed.sqlite", climb(make), 3) == trials


def test_what_is_promised_of_any_strategy_holds_for_it(
    make: "type[Strategy]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 3: what a line in `STRATEGIES` has checked."""
    from test_strategies import STRATEGIES, TestAnyStrategy, whole_run

    name = "hill climbing"
    monkeypatch.setitem(STRATEGIES, name, lambda: climb(make, 40))
    assert len(whole_run(name)) > 10
    promises = TestAnyStrategy()
    for workers, seldom in ((1, True), (7, False)):
        promises.test_workers_and_their_pace_have_no_influence(name, workers, seldom)
    promises.test_a_run_goes_on_wherever_it_was_killed(name)
    promises.test_what_was_proposed_elsewhere_holds(name)
    promises.test_it_ends_and_makes_no_more_than_it_planned(name)


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_files_that_a_page_links_to_exist(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text("utf-8"))
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_files_and_names_that_are_named_exist() -> None:
    files = re.findall(r"`((?:pnas_fast|kernels|export|csrc|tests|docs)/[\w./]*)`", TEXT)
    assert len(files) > 20
    assert not [file for file in files if not (ROOT / file).exists()]
    code = "\n".join(path.read_text("utf-8") for file in set(files) for path in _sources(ROOT / file))
    names = re.findall(r"`(_?[A-Za-z_]{4,})`", TEXT)
    unknown = [name for name in names if not re.search(rf"\b{name}\b", code)]
    assert not unknown


def _sources(path: Path) -> list[Path]:
    return list(path.glob("*.py")) if path.is_dir() else [path]


def test_targets_of_make_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make ([a-z-]+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
