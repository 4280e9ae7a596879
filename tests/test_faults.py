"""A search whose children raise, run out of memory or hang, and one whose machine is at fault.

The first are one failed trial each. The others stop the search with one line, and when the fault is mended
the same search goes on to the same end.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faulty import Source, logged
from pnas_fast.candidates import one_block_cells
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.guard import make_evaluator
from pnas_fast.evaluation.train import plain_settings
from pnas_fast.executors.local import LOG, LocalExecutor
from pnas_fast.protocols import Event, MachineError, Proposal, Spec, Told, Trial
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import child_file
from pnas_fast.search.driver import Driver
from pnas_fast.space import Cell

pytestmark = pytest.mark.slow

SETTINGS = TrainingSettings(filters=4, batch=32, train_images=128, device="cpu", time_limit=15.0)
CELLS = [Cell.from_codes(codes) for codes in one_block_cells(("sep3x3", "max_pool3x3"))]

FAULTS = {
    "0:sep3x3+0:sep3x3": "exception",
    "0:max_pool3x3+0:max_pool3x3": "kill once",
    "0:sep3x3+0:max_pool3x3": "memory",
    "1:sep3x3+1:sep3x3": "hang",
    "0:sep3x3+1:sep3x3": "memory once",
}


class AllOf:
    """Proposes some cells, and that is that."""

    planned = len(CELLS)

    def __init__(self) -> None:
        self._left: Sequence[Proposal] = [Proposal(cell, 1) for cell in CELLS]

    def ask(self) -> Sequence[Proposal]:
        asked, self._left = self._left, []
        return asked

    def tell(self, trial: Trial) -> None:
        pass


def search(folder: Path, faults: dict[str, str], workers: int = 2) -> list[tuple[Any, ...]]:
    """Search, or go on with it; of each trial what must not depend on how a search went."""
    folder.mkdir(exist_ok=True)
    settings = {"settings": plain_settings(SETTINGS), "data": "digits", "faults": faults}
    spec = Spec("faulty:FaultyTrain", settings)
    found: list[tuple[Any, ...]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Told):
            measurement = event.trial.measurement
            values = {name: value for name, value in measurement.values.items() if "second" not in name}
            found.append((event.trial.number, event.trial.proposal, replace(measurement, values=values)))

    with (
        LocalExecutor(["cpu"] * workers, folder, SETTINGS.time_limit, grace=1.0) as executor,
        TrialStore(folder / "trials.sqlite", write=True) as store,
    ):
        executor.start(spec, Source())
        Driver(AllOf(), "all", make_evaluator(spec), executor, store, 0, listen).run()
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    return search(tmp_path_factory.mktemp("sound"), {})


def test_what_a_cell_does_is_one_failed_trial(tmp_path: Path, sound: list[tuple[Any, ...]]) -> None:
    found = search(tmp_path, FAULTS)
    errors = {str(proposal.cell): measurement.error for _, proposal, measurement in found}
    assert {cell: error for cell, error in errors.items() if error} == {
        "0:sep3x3+0:sep3x3": "ValueError: this cell is cursed",
        "0:sep3x3+0:max_pool3x3": "out of memory: CUDA out of memory. Tried to allocate 9 GiB "
        "(2 times, the last time alone)",
        "1:sep3x3+1:sep3x3": "hung: no result 1 s past the time limit of 15 s",
    }
    tries = {"exception": 1, "kill once": 2, "memory": 2, "hang": 1, "memory once": 2}
    for cell, fault in FAULTS.items():
        processes = [pid for pid, _, built in logged(tmp_path) if built == cell]
        assert len(set(processes)) == len(processes) == tries[fault], cell
    # Children that were tried again, and those beside the faults, are what they are without faults.
    assert [trial for trial in found if trial[2].done] == [
        trial for trial in sound if not errors[str(trial[1].cell)]
    ]
    assert "cursed" in (tmp_path / LOG).read_text()
    weights = [child_file(tmp_path, trial[0]).exists() for trial in found]
    assert weights == [trial[2].done for trial in found]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "kill",
            r"cpu was killed \(SIGKILL\), perhaps .* for want of memory .* child 1 \(0:s.* 2 times, the",
        ),
        ("crash", r"cpu crashed \(SIGSEGV\) in compiled code.* with child 1 .* 2 times, the last time alone"),
        (
            "quota",
            r"cpu: Disk quota exceeded: /home/you/\.cache \(free some of your quota, then run the same",
        ),
        (
            "disk",
            r"cpu: File too large: .*\.safetensors \(raise the limit on a file's size \(ulimit -f\), then",
        ),
    ],
)
def test_what_the_machine_does_stops_the_search_and_is_no_trial(
    tmp_path: Path, sound: list[tuple[Any, ...]], fault: str, message: str
) -> None:
    with pytest.raises(MachineError, match=message) as caught:
        search(tmp_path, {"0:sep3x3+0:max_pool3x3": fault})
    assert "\n" not in str(caught.value)
    with TrialStore(tmp_path / "trials.sqlite") as store:
        assert all(trial.done for trial in store.trials())
    assert search(tmp_path, {}) == sound
