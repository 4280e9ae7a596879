"""In which order children are trained, and that their trials come back in the order of the cells."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pnas_fast import OPERATIONS, Cell, SearchConfig
from pnas_fast.evaluation import ChildResult
from pnas_fast.executors.messages import Task
from pnas_fast.executors.pool import Drained, Event, Finished
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.display import SilentDisplay
from pnas_fast.search.evaluator import EFFORT, Evaluator


class Pool:
    """Trains nothing: every child fails at once."""

    order: Sequence[str] = ()

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        self.order = [task.cell for task in tasks]
        for task in tasks:
            yield Finished(task, ChildResult(error="not trained"), "cpu", 0.0)
        yield Drained(0.0)


def test_what_takes_longest_is_trained_first(tmp_path: Path) -> None:
    texts = [
        "0:identity+1:sep3x3",
        "0:conv1x7_7x1+1:sep7x7",
        "0:avg_pool3x3+0:avg_pool3x3",
        "0:sep5x5+1:sep3x3",
    ]
    pool: Any = Pool()
    with TrialStore(tmp_path / "trials.sqlite") as store:
        evaluator = Evaluator(SearchConfig(), tmp_path, store, pool, SilentDisplay())
        trials = evaluator.evaluate(1, [Cell.parse(text) for text in texts], 5)
    assert pool.order == [texts[1], texts[3], texts[0], texts[2]]
    assert [(trial.position, trial.cell) for trial in trials] == list(enumerate(texts, 5))


def test_every_operation_has_an_effort() -> None:
    assert set(EFFORT) == set(OPERATIONS)
