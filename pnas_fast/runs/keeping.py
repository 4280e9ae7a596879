"""Listeners that keep what a run leaves: the strategy's notes, and the best child's weights."""

from __future__ import annotations

from pathlib import Path

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Drained, Event, Finished, Noted, Proposal, Proposed, Told, Trial
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import BEST, child_file, digest, discard, promote

WEIGHTS = "weights_digest"
WEIGHTS_OF = "weights_of"


class NoteKeeper:
    """Stores kept notes by the number of trials told, and waiting by the number of proposals made."""

    def __init__(self, store: TrialStore) -> None:
        self._store = store
        self._asked = self._told = 0

    def on(self, event: Event) -> None:
        """Count, and store a note that is to be kept."""
        match event:
            case Proposed():
                self._asked += 1
            case Told():
                self._told += 1
            case Noted(name, values, kept) if kept:
                self._store.note(name, self._told, values)
            case Drained(waited, workers):
                self._store.note("drained", self._asked, {"waited": waited, "workers": workers})
            case _:
                pass


class BestKeeper:
    """Moves the weights of the best child so far to the run's ``best.safetensors``, and removes others.

    A measurement is committed before: a crash between the two loses neither, since weights lie in
    ``children/`` until they are moved or another is known to be better. Those of final trainings lie there
    until `choose` is told the best of them.

    Args:
        folder: the run.
        store: of the run.
        best: the best trial so far (`pnas_fast.runs.choice.best_of`).
        aims: of the search.
    """

    def __init__(
        self, folder: Path, store: TrialStore, best: Trial | None, aims: Aims = ACCURACY_ALONE
    ) -> None:
        self._folder, self._store, self._aims = folder, store, aims
        self.best: Trial | None = None
        self.choose(best)

    def choose(self, best: Trial | None) -> None:
        """Make a trial the best, and its weights, if they are there, the run's."""
        self.best = best
        if best is not None and child_file(self._folder, best.number).exists():
            self.promote(best)

    def on(self, event: Event) -> None:
        """Keep or remove a finished child's weights; a better trial of before has left its own, or none."""
        match event:
            case Finished(task) if task.proposal.is_final:
                pass
            case Finished(task, measurement):
                trial = Trial(task.number, task.proposal, measurement)
                if self._is_better(trial):
                    self.best = trial
                    if child_file(self._folder, trial.number).exists():
                        self.promote(trial)
                else:
                    discard(self._folder, trial.number)
            case Told(trial) if self._is_better(trial):
                self.best = trial
            case _:
                pass

    def _is_better(self, trial: Trial) -> bool:
        if self.best is not None and self.best.proposal.is_final:
            return False
        is_searched = trial.done and not trial.proposal.is_final
        rank = self._aims.rank
        return is_searched and (self.best is None or rank(trial) > rank(self.best))

    def promote(self, trial: Trial) -> None:
        """Make the weights of a trial's child, which are there, the run's best."""
        # Both, since the file may be either when the process is killed here.
        before = self._store.fact(WEIGHTS) or ""
        path = child_file(self._folder, trial.number)
        self._store.set_fact(WEIGHTS, f"{digest(path)},{before.partition(',')[0]}")
        promote(self._folder, trial.number)
        self._store.set_fact(WEIGHTS_OF, _text(trial.proposal))

    @property
    def lacks_weights(self) -> bool:
        """Whether ``best.safetensors`` is missing, or another child's of a former configuration."""
        if self.best is None:
            return False
        is_its = self._store.fact(WEIGHTS_OF) == _text(self.best.proposal)
        return not (is_its and (self._folder / BEST).is_file())


def _text(proposal: Proposal) -> str:
    return " ".join(map(str, proposal.key("")))
