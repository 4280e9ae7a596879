"""Ask, submit, remember, tell: the loop of every search. It knows no strategy, no network and no device.

A run is a deterministic function of its strategy and of measurements, which the store memoises. So
continuing a run that was stopped is running it again; there is no second code path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pnas_fast.cli.ending import Ending, Stop
from pnas_fast.protocols.events import Finished, Proposed, Said, Told
from pnas_fast.protocols.parts import Emit, Evaluator, Executor, Strategy
from pnas_fast.protocols.values import Key, Measurement, Proposal, Task, Trial, child_seed
from pnas_fast.runs.store import TrialStore

OTHER_CHOICE = "another machine chose otherwise here before; its choices hold"
"""Said once, where a stored proposal is not the one that the strategy would make now."""


@dataclass
class Driver:
    """Runs a strategy to its end, or on to its end.

    ``evaluator`` gives an identity and what takes longest; evaluating is the ``executor``'s, which has been
    started. The ``store`` is open to write. ``seed``, cell and replica make a child's seed. ``emit`` is told
    every event, ``traced`` says whether the proposal of a number is to be traced. Whoever asks ``stop`` has
    drained the executor.
    """

    strategy: Strategy
    name: str
    evaluator: Evaluator
    executor: Executor
    store: TrialStore
    seed: int
    emit: Emit
    traced: Callable[[int, Proposal], bool] = lambda number, proposal: False
    stop: Stop = field(default_factory=Stop)
    _asked: list[Proposal] = field(default_factory=list)
    _out: set[Key] = field(default_factory=set)
    _said: bool = False

    def run(self) -> None:
        """Ask until the strategy is done, telling it every trial in order of number.

        Raises:
            StrategyError, EvaluatorError: the strategy cannot go on, the evaluator cannot answer.
            MachineError: the machine is at fault; nothing is lost.
            Ending: it was asked to stop, and nothing runs any more.
        """
        told = 0
        while True:
            self._submit(self.strategy.ask())
            if told == len(self._asked):
                return
            proposal = self._asked[told]
            trial = Trial(told, proposal, self._wait(self._key(proposal)))
            self.emit(Told(trial, replayed=self._key(proposal) not in self._out))
            self.strategy.tell(trial)
            told += 1

    def _key(self, proposal: Proposal) -> Key:
        return proposal.key(self.evaluator.identity)

    def _submit(self, asked: Sequence[Proposal]) -> None:
        """Number what was asked for, and submit what is neither known nor on its way, longest first."""
        first = len(self._asked)
        held = self.store.propose(first, asked, self.evaluator.identity, self.name)
        if held != list(asked) and not self._said:
            self._said = True
            self.emit(Said(OTHER_CHOICE))
        tasks = list[Task]()
        for number, proposal in enumerate(held, first):
            key = self._key(proposal)
            known = self.store.measurement(key) is not None
            if not known and key not in self._out:
                self._out.add(key)
                seed, traced = child_seed(self.seed, proposal), self.traced(number, proposal)
                tasks.append(Task(number, proposal, seed, traced=traced))
            self.emit(Proposed(number, proposal, known))
        self._asked += held
        for task in sorted(tasks, key=lambda task: -self.evaluator.effort(task.proposal.cell)):
            self.executor.submit(task)

    def _wait(self, key: Key) -> Measurement:
        """A measurement, committing all that finish before anybody hears of them."""
        while (found := self.store.measurement(key)) is None:
            happened = False
            for event in self.executor.events():
                happened = True
                if isinstance(event, Finished):
                    self.store.add(self._key(event.task.proposal), event.measurement)
                self.emit(event)
            if not happened:
                assert self.stop.asked, f"the executor forgot the task of {key}"
                raise Ending
        return found
