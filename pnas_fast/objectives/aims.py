"""What the cells of a search are to be good at: accuracy, costs to be small, limits to be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pnas_fast.objectives.dominance import first_layers
from pnas_fast.objectives.hypervolume import hypervolume
from pnas_fast.objectives.limits import COSTS, Bound, parse_limits, parse_objectives
from pnas_fast.protocols import Cost, Trial
from pnas_fast.space import Cell, Codes

Floats = npt.NDArray[np.float64]
Rank = tuple[float, float, float, int]


@dataclass(frozen=True)
class Aims:
    """What cells are chosen by. Without arguments: accuracy alone.

    Args:
        costs: that are to be small, beside accuracy.
        limits: costs and the most that each may be. Of two cells that break one the better is that which
            breaks them by less: the sum of how far each is over its limit, as a share of the limit.
    """

    costs: tuple[Cost, ...] = ()
    limits: tuple[tuple[Cost, Bound], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything beside accuracy."""
        return bool(self.costs or self.limits)

    @property
    def growing(self) -> Aims:
        """With those limits that whatever grows out of a cell breaks where the cell does."""
        return Aims(self.costs, tuple(limit for limit in self.limits if limit[0].grows))

    def violations(self, codes: Codes) -> Floats:
        """By how much cells int8 (M, b, 4) break limits: (M,), 0 where all are kept."""
        total = np.zeros(len(codes))
        for cost, bound in self.limits:
            total += np.maximum(cost.before(codes) - bound.most, 0) / bound.most
        return total

    def violation(self, cell: Cell) -> float:
        """By how much a cell breaks limits; 0 where it keeps all."""
        return float(self.violations(cell.codes[np.newaxis])[0]) if self.limits else 0.0

    def may_follow(self, cell: Cell, violation: float) -> bool:
        """Whether a cell keeps all limits, or breaks them by less than one that was tried."""
        return not self.limits or (found := self.violation(cell)) == 0 or found < violation

    def rank(self, trial: Trial) -> Rank:
        """A done trial's rank by accuracy: of two the better has the greater, who keeps limits first."""
        return (-self.violation(trial.cell), *trial.order)

    def points(self, trials: Sequence[Trial]) -> Floats:
        """Trials as points (n, 1 + costs) that are to be small: minus the accuracy, and the costs."""
        columns = [[-trial.accuracy for trial in trials]]
        columns += [[cost.of(trial) for trial in trials] for cost in self.costs]
        return np.array(columns, np.float64).T

    def feasible(self, trials: Iterable[Trial]) -> list[Trial]:
        """Done trials whose cells keep all limits."""
        return [trial for trial in trials if trial.done and not self.violation(trial.cell)]

    def front(self, trials: Iterable[Trial], costs: Sequence[Callable[[Trial], float]] = ()) -> list[Trial]:
        """The done trials that no other beats, the most accurate first; of trials alike in all, the first.

        Only trials whose cells keep all limits are looked at; where none does, those that break them least.

        Args:
            trials: measured ones, in order.
            costs: of a trial, that count in place of the aims' own. One for which they are NaN is left out.
        """
        counted = costs or [cost.of for cost in self.costs]
        done = [trial for trial in trials if trial.done]
        violations = [self.violation(trial.cell) for trial in done]
        least = min(violations, default=0.0)
        done = [trial for trial, violation in zip(done, violations, strict=True) if violation == least]
        points = np.array([[-trial.accuracy, *(cost(trial) for cost in counted)] for trial in done])
        points = points.reshape(len(done), 1 + len(counted))
        known = np.flatnonzero(np.isfinite(points).all(axis=1))
        if not len(known):
            return []
        front, _ = first_layers(points[known], 1)
        _, first = np.unique(points[known[np.sort(front)]], axis=0, return_index=True)
        return [done[index] for index in known[np.sort(front)][first]]

    def reference(self, blocks: int, operations: Sequence[str]) -> Floats:
        """What hypervolumes are measured from, whatever was found: (1 + costs,).

        Accuracy 0, and of each cost its limit, or without one the most that any cell costs.
        """
        most = {bound.name: bound.most for _, bound in self.limits}
        return np.array([0.0, *(most.get(cost.name) or cost.most(blocks, operations) for cost in self.costs)])

    def hypervolume(self, trials: Iterable[Trial], reference: Floats) -> float:
        """Of the trials that keep all limits, as a share: 1 is an accuracy of 1 that costs nothing."""
        points = self.points(self.feasible(trials))
        scale = np.array([1.0, *reference[1:]])
        return hypervolume(points / scale, reference / scale) if len(points) else 0.0


ACCURACY_ALONE = Aims()


def aims_of(objectives: Sequence[str], limits: Sequence[str], costs: Mapping[str, Cost]) -> Aims:
    """Aims from the names of objectives and the texts of limits.

    Raises:
        ValueError: a name or a text that is not one, or a cost that is not among ``costs``.
    """
    names = [COSTS[name] for name in parse_objectives(objectives)[1:]]
    bounds = parse_limits(limits)
    for name in (*names, *(bound.name for bound in bounds)):
        if name not in costs:
            raise ValueError(f"{name} is not known of its cells, but {' '.join(costs) or 'nothing'} is")
    return Aims(tuple(costs[name] for name in names), tuple((costs[bound.name], bound) for bound in bounds))
