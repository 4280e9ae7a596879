"""A run as it lies in its folder, read once: the one reader of results, reports and other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pnas_fast.objectives import Parameters
from pnas_fast.objectives.aims import Aims
from pnas_fast.protocols import Cost, Key, Trial
from pnas_fast.runs.choice import Choice, choose, planned_finals, split
from pnas_fast.runs.config import read_values
from pnas_fast.runs.costs import run_aims, stored_costs
from pnas_fast.runs.database import connect_to_read, version_of
from pnas_fast.runs.folder import CONFIG, TRIALS, RunError
from pnas_fast.runs.history import check_not_edited
from pnas_fast.runs.images import RunImages, images_of
from pnas_fast.runs.old_store import VERSIONS, read_old
from pnas_fast.runs.store import StoredNote, TrialStore


@dataclass(frozen=True)
class RunRecord:
    """Everything a search has left in its folder, finished or not.

    ``trials`` are the search's measured proposals in order of their number: one of them may repeat an earlier
    cell (`distinct` has each once); ``finals`` are the final trainings so far. ``config`` holds the
    configuration's JSON values, ``notes`` what the strategy kept, ``weights_digest`` the SHA-256 of the best
    child's weights where it is known, ``images`` what the run was told of its images, None in older ones.
    ``costs`` are those of cells in the network to be deployed, by their names, where the run was told to look
    at any.
    """

    folder: Path
    config: Mapping[str, Any]
    trials: list[Trial]
    notes: list[StoredNote]
    finals: list[Trial] = field(default_factory=list)
    weights_digest: str | None = None
    is_of_earlier_version: bool = False
    images: RunImages | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path | str) -> RunRecord:
        """Read a run's folder, which need not be writable; a search may be adding to it.

        Raises:
            RunError: there is no run, or its configuration was edited since its trials were made.
            ConfigError: ``config.json`` cannot be read.
            StoreError: ``trials.sqlite`` is damaged or something else.
        """
        folder = Path(folder)
        path = folder / TRIALS
        if not path.is_file():
            raise RunError(f"{folder}: holds no {TRIALS}, expected the folder of a search")
        config = read_values(folder / CONFIG)
        connection = connect_to_read(path)
        try:
            if version_of(connection) in VERSIONS:
                trials, notes = read_old(connection, path, _epochs(config))
                return cls(folder, config, trials, notes, is_of_earlier_version=True)
        finally:
            connection.close()
        with TrialStore(path) as store:
            check_not_edited(folder, config, store)
            # Notes first: a search may be adding, and what a note tells of comes before it.
            kept = store.notes()
            trials, finals = split(store.trials())
            weights, images = store.fact("weights_digest"), images_of(store, str(path))
            costs = stored_costs(store, folder)
            return cls(folder, config, trials, kept, finals, weights, images=images, costs=costs)

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return str(self.config.get("strategy", "progressive"))

    @cached_property
    def aims(self) -> Aims:
        """What its cells are to be good at.

        Raises:
            StoreError: the run does not say what they cost.
        """
        return run_aims(self.config, self.costs, self.folder)

    @cached_property
    def distinct(self) -> list[Trial]:
        """The first trial of each measurement, in order: what was really evaluated."""
        first: dict[Key, Trial] = {}
        for trial in self.trials:
            first.setdefault(trial.proposal.key(""), trial)
        return list(first.values())

    @cached_property
    def done(self) -> list[Trial]:
        """Those of `distinct` that did not fail."""
        return [trial for trial in self.distinct if trial.done]

    @cached_property
    def failed(self) -> list[Trial]:
        """Those of `distinct` that failed."""
        return [trial for trial in self.distinct if not trial.done]

    @cached_property
    def ranked(self) -> list[Trial]:
        """The search's finished trials, the best first: who keeps limits, then by accuracy (`Aims.rank`)."""
        return sorted(self.done, key=self.aims.rank, reverse=True)

    @cached_property
    def front(self) -> list[Trial]:
        """The measured trials that no other beats (`Aims.front`), the most accurate first.

        A run for accuracy alone has that of accuracy and its children's parameters, where they are known.
        """
        if self.aims.costs or not any(Parameters().of(trial) > 0 for trial in self.done):
            return self.aims.front(self.done)
        return self.aims.front(self.done, [Parameters().of])

    @cached_property
    def front_latency(self) -> dict[int, float]:
        """Milliseconds of networks on the front, measured where they will run, by the numbers of trials."""
        notes = self.notes_named("front_latency")
        return {int(number): float(ms) for number, ms in notes[-1].values.items()} if notes else {}

    @property
    def best(self) -> Trial | None:
        """The trial whose weights are kept: the chosen cell's, or the search's best; None without any."""
        if self.choice is not None:
            return self.choice.chosen.best
        return self.ranked[0] if self.ranked else None

    @cached_property
    def choice(self) -> Choice | None:
        """The final choice; None where there is none, or none yet."""
        return choose(self.trials, self.finals, *self._finalists, self.aims)

    @property
    def planned_finals(self) -> int:
        """Final trainings that there will be if the search is over."""
        return planned_finals(self.trials, *self._finalists)

    @property
    def _finalists(self) -> tuple[int, int]:
        cells, replicas = (self.config.get(name, 0) for name in ("finalists", "final_replicas"))
        return (cells, replicas) if isinstance(cells, int) and isinstance(replicas, int) else (0, 0)

    def notes_named(self, name: str) -> list[StoredNote]:
        """The kept notes of a name, in order."""
        return [note for note in self.notes if note.name == name]

    @property
    def images_seen(self) -> int:
        """The cost of the search so far in training images, the paper's M1·E1; final trainings are apart."""
        return int(sum(trial.measurement.values.get("images_seen", 0) for trial in self.distinct))

    @property
    def child_seconds(self) -> float:
        """Time spent in children, added up over all of them, also where several ran side by side."""
        return sum(trial.measurement.values.get("seconds", 0.0) for trial in self.distinct)


def _epochs(config: Mapping[str, Any]) -> int:
    epochs = config.get("epochs", 1)
    return epochs if isinstance(epochs, int) else 1
