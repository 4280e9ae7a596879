"""Regularised evolution: the best of a sample has a child, and the oldest dies (Real et al., AAAI 2019)."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from pnas_fast.objectives.aims import ACCURACY_ALONE, Aims
from pnas_fast.protocols import Objective, Proposal, StrategyError, Trial
from pnas_fast.space import Cell
from pnas_fast.space.neighbours import mutate
from pnas_fast.strategies.budgeted import Budgeted
from pnas_fast.strategies.fitting import draw_fitting
from pnas_fast.strategies.population import Population, sample_of, size_of
from pnas_fast.strategies.random import draw_new

STREAM = 5
IDENTITY = 0.05
"""How often a child is its parent trained again, where cells are trained again."""


class Evolution(Budgeted):
    """Regularised (aging) evolution with a fixed lag.

    The first ``population`` proposals are random search's. Each later one is a mutation of the best of
    ``sample`` members of the population, drawn with replacement.

    Proposal i sees the results 0 … i − lag − 1, no more and no fewer. So at most lag + 1 children are out
    after the random phase, and neither the number of workers nor who finishes first, as small children do,
    has any influence: another lag is another search.

    Args:
        blocks: of each cell.
        operations: that cells are made of.
        budget: children to train, failed ones included.
        epochs: of each child.
        seed: of all draws, 0 or more.
        lag: results that a proposal does not wait for; best 2 to 4 times the workers and at most a third of
            the population.
        population: its size; 0 for a tenth of the budget, but 20 to 100.
        sample: members that compete to be a parent; 0 for a quarter of the population, but 2 at least, and
            for 2 where there are costs.
        retrain: train a cell that comes up again again, as the next replica, and now and then make a parent
            its own child: what was lucky once does not live on. Else parent and mutation are drawn again,
            100 times at most, while the child is one that was proposed before.
        objective: what parents are chosen by; None for accuracy.
        aims: costs that parents are chosen by beside accuracy (`Population`), and limits that children are
            to keep: parent and mutation are drawn again while a child breaks one (`draw_fitting`).

    Raises:
        CellError: blocks or operations outside the search space.
        StrategyError: a budget less than 1, or another number less than 0.
    """

    def __init__(
        self, blocks: int, operations: Sequence[str], budget: int, epochs: int, seed: int, lag: int = 16,
        population: int = 0, sample: int = 0, retrain: bool = False, objective: Objective | None = None,
        aims: Aims = ACCURACY_ALONE,
    ) -> None:  # fmt: skip
        for name, value in (("lag", lag), ("population", population), ("sample", sample)):
            if value < 0:
                raise StrategyError(f"{name} {value}, allowed is 0 and more")
        super().__init__(budget)
        self._blocks, self._operations, self._aims = blocks, tuple(operations), aims
        self._epochs, self._seed, self._lag, self._retrain = epochs, seed, lag, retrain
        self._random = size_of(population, budget)
        rivals = sample_of(sample, self._random, several=bool(aims.costs))
        self._population = Population(self._random, rivals, objective, aims)
        self._advance(told=0)

    def tell(self, trial: Trial) -> None:
        """A trial enters the population, unless it failed, and the next proposal is made.

        Raises:
            StrategyError: too many children failed one after another.
        """
        super().tell(trial)
        self._population.add(trial)
        self._advance(told=trial.number + 1)

    def _advance(self, told: int) -> None:
        """Propose all that may see just what was told."""
        self._fill(max(self._random, told + self._lag + 1), self._propose)

    def _propose(self) -> Proposal:
        number = len(self._asked)
        if number < self._random or not self._population:
            cell = draw_new(self._blocks, self._operations, self._seed, self._asked, self._aims)
            return Proposal(cell, self._epochs)
        rng = np.random.default_rng([self._seed, STREAM, number])
        if self._retrain:
            parent, child = self._child(rng, among=())
            replica = self._asked.replicas(child)
        else:
            parent, child = self._child(rng, among=self._asked)
            replica = 0
        return Proposal(child, self._epochs, replica, {"parent": parent.number})

    def _child(self, rng: np.random.Generator, among: Container[Cell]) -> tuple[Trial, Cell]:
        """A parent and its child; of another parent where all next to this one is ``among`` some cells."""

        def draw() -> tuple[Trial, Cell]:
            parent = self._population.parent(rng)
            if self._retrain and rng.random() < IDENTITY:
                return parent, parent.cell.canonical()
            return parent, mutate(parent.cell, self._operations, rng)

        return draw_fitting(draw, lambda drawn: drawn[1], lambda drawn: drawn[1] in among, self._aims)
