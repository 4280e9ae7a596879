"""A controller: a policy that cells are drawn from learns which are good (Zoph et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import isfinite
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Emit, Noted, Proposal, StrategyError, Trial
from pnas_fast.space import Cell
from pnas_fast.strategies.budgeted import Budgeted
from pnas_fast.strategies.fitting import draw_fitting
from pnas_fast.strategies.policy import Choices, LstmPolicy, Policy, TablePolicy
from pnas_fast.strategies.policy_gradient import ALGORITHMS, Learner
from pnas_fast.threads import torch_threads

STREAM = 2
INITIAL = (0, 1)
"""What stands in a proposal's place where the LSTM's parameters are drawn; a proposal's number is shorter."""

RATES = {"lstm": 8e-4, "table": 0.05}
"""Adam's learning rate for each policy where none is given."""

DECAY = 0.95
"""The baseline is a moving average of rewards, each of which moves it by 1 − this."""


class Controller(Budgeted):
    """Policy gradient with a fixed lag.

    Cells are drawn from a policy. When the trials of a batch are told, numbers u M to u M + M − 1, the policy
    learns from them and is version u + 1 from then on. The reward is accuracy; the baseline, which it is
    compared with, is the moving average before the batch, and for the first batch its mean.

    Proposal i is made when result i − lag − 1 is told, by version max(0, ⌊(i − lag) / M⌋), whatever else is
    known: another lag is another search. The policy of that version is kept until the trial is told, since
    PPO compares with it how likely the cell has become.

    Cells keep the order in which the policy wrote them, whose probability is what it learns; a cell that was
    proposed before, in whatever order, is answered from memory and learned from again. Failed children, and
    those without an accuracy, are left out of an update.

    Notes, kept, after each batch: ``update``, with the version's number that the batch made, the ``entropy``
    of the policy before it (nats, by the batch's cells), the ``baseline`` that held and the ``mean_reward``
    (None where nothing has an accuracy), and how many cells of all told are ``distinct``.

    Args:
        blocks: of each cell.
        operations: that cells are made of.
        budget: children to train, failed ones included.
        epochs: of each child.
        seed: of all draws, 0 or more.
        lag: results that a proposal does not wait for; best a batch at most.
        batch: M, the proposals that the policy learns from at a time.
        policy: ``lstm``, or ``table`` for a free logit for every value of every choice.
        algorithm: ``ppo`` or ``reinforce``.
        rate: Adam's learning rate; 0 for that of the policy, `RATES`.
        emit: is told the notes.
        aims: whose limits count; its costs do not. A cell that breaks one is drawn again (`draw_fitting`);
            what is learned from one all the same is accuracy / (1 + `Aims.violation`).

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: a budget or a batch less than 1, a lag or rate less than 0, or an unknown name.
    """

    def __init__(
        self, blocks: int, operations: Sequence[str], budget: int, epochs: int, seed: int, lag: int = 16,
        batch: int = 20, policy: str = "lstm", algorithm: str = "ppo", rate: float = 0.0,
        emit: Emit = lambda event: None, aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        _check(lag, batch, policy, algorithm, rate)
        super().__init__(budget)
        self._epochs, self._seed, self._lag, self._batch, self._emit = epochs, seed, lag, batch, emit
        self._aims = aims
        self._choices = Choices(blocks, operations)
        self._policy = self._first_policy(policy)
        self._learner = Learner(self._policy, ALGORITHMS[algorithm], rate or RATES[policy])
        self._version = 0
        self._versions: dict[int, Policy] = {0: deepcopy(self._policy)}
        self._baseline: float | None = None
        self._told = list[Trial]()
        self._distinct = set[Cell]()
        self._advance(told=0)

    def _first_policy(self, name: str) -> Policy:
        if name == "table":
            return TablePolicy(self._choices)
        return LstmPolicy(self._choices, np.random.default_rng([self._seed, STREAM, *INITIAL]))

    def tell(self, trial: Trial) -> None:
        """The last trial of a batch changes the policy; then the next proposal is made.

        Raises:
            StrategyError: too many children failed one after another, or the learning rate is too high.
        """
        super().tell(trial)
        self._distinct.add(trial.cell.canonical())
        self._told.append(trial)
        if len(self._told) == self._batch:
            with torch_threads(1), torch.enable_grad():
                self._update(self._told)
            self._told = []
        self._advance(told=trial.number + 1)

    def _advance(self, told: int) -> None:
        """Propose all that may see just what was told."""
        self._fill(told + self._lag + 1, self._propose)

    def _propose(self) -> Proposal:
        rng = np.random.default_rng([self._seed, STREAM, len(self._asked)])

        def draw() -> tuple[Cell, float]:
            return self._policy.sample(rng.random(len(self._choices.limits)))

        with torch_threads(1):
            cell, log_probability = draw_fitting(
                draw, lambda drawn: drawn[0], lambda drawn: False, self._aims
            )
        note = {"version": self._version, "log_probability": log_probability}
        return Proposal(cell, self._epochs, note=note)

    def _version_of(self, number: int) -> int:
        """Which version proposed so."""
        return max(0, (number - self._lag) // self._batch)

    def _update(self, trials: Sequence[Trial]) -> None:
        """The next version, and a note on it."""
        entropy = self._entropy(trials)
        good = [trial for trial in trials if isfinite(trial.accuracy)]
        rewards = [trial.accuracy / (1 + self._aims.violation(trial.cell)) for trial in good]
        baseline = self._baseline
        if rewards:
            baseline = fmean(rewards) if baseline is None else baseline
            self._learn(good, torch.tensor(rewards, dtype=torch.float64) - baseline)
            self._baseline = baseline
            for reward in rewards:
                self._baseline = DECAY * self._baseline + (1 - DECAY) * reward
        self._version += 1
        self._versions[self._version] = deepcopy(self._policy)
        oldest = self._version_of(trials[-1].number + 1)
        self._versions = {version: kept for version, kept in self._versions.items() if version >= oldest}
        note = {
            "update": self._version, "entropy": entropy, "baseline": baseline,
            "mean_reward": fmean(rewards) if rewards else None, "distinct": len(self._distinct),
        }  # fmt: skip
        self._emit(Noted("update", note, kept=True))

    def _learn(self, trials: Sequence[Trial], advantage: Tensor) -> None:
        values = self._choices.of(trial.cell for trial in trials)
        self._learner.learn(values, self._sampled(trials), advantage)
        if not all(bool(parameter.isfinite().all()) for parameter in self._policy.parameters):
            raise StrategyError(
                f"the controller's policy is not finite after trial {trials[-1].number}: lower its rate"
            )

    @torch.no_grad()
    def _entropy(self, trials: Sequence[Trial]) -> float:
        _, entropy = self._policy.evaluate(self._choices.of(trial.cell for trial in trials))
        return float(entropy.mean())

    @torch.no_grad()
    def _sampled(self, trials: Sequence[Trial]) -> Tensor:
        """Log-probabilities (n,) of what was told, by the versions that proposed in its place."""
        found = torch.empty(len(trials), dtype=torch.float64)
        versions = [self._version_of(trial.number) for trial in trials]
        for version in set(versions):
            places = [place for place, of in enumerate(versions) if of == version]
            values = self._choices.of(trials[place].cell for place in places)
            found[places] = self._versions[version].evaluate(values)[0]
        return found


def _check(lag: int, batch: int, policy: str, algorithm: str, rate: float) -> None:
    if lag < 0:
        raise StrategyError(f"lag {lag}, allowed is 0 and more")
    if batch < 1:
        raise StrategyError(f"batch {batch}, allowed is 1 and more")
    if not 0 <= rate < float("inf"):
        raise StrategyError(f"rate {rate}, allowed is 0 and more")
    for name, value, allowed in (("policy", policy, RATES), ("algorithm", algorithm, ALGORITHMS)):
        if value not in allowed:
            raise StrategyError(f"{name} {value!r}, allowed are {' '.join(allowed)}")


def notes_on_controller(budget: int, lag: int, batch: int) -> list[str]:
    """Lines for people where little is learned, or late."""
    notes = []
    if 2 * (lag + batch) > budget:
        notes.append(
            f"controller: {min(lag + batch, budget)} of {budget} children are drawn before it has learned "
            f"anything; a budget of {2 * (lag + batch)} and more, or smaller batches, leave more to learning"
        )
    if lag > batch:
        notes.append(
            f"controller: a lag of {lag} is more than a batch of {batch} proposals, so it learns from what "
            f"was proposed more than a batch ago; a lag of {batch} and less, or larger batches, learn better"
        )
    return notes
