"""What strategies with a budget have in common: what they asked for, what is ready, and failures in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pnas_fast.protocols import Proposal, Trial
from pnas_fast.strategies.asked import Asked
from pnas_fast.strategies.failures import Failures


class Budgeted:
    """A strategy that makes a proposal as soon as what it may see of the results is told.

    Args:
        budget: children to train, failed ones included.

    Raises:
        StrategyError: a budget less than 1.
    """

    def __init__(self, budget: int) -> None:
        self._asked = Asked(budget)
        self._failures = Failures()
        self._ready = list[Proposal]()

    @property
    def planned(self) -> int:
        """How many proposals it will make, as far as is known."""
        return self._asked.planned

    def ask(self) -> Sequence[Proposal]:
        """What has become ready since it was last asked."""
        ready, self._ready = self._ready, []
        return ready

    def tell(self, trial: Trial) -> None:
        """The next trial; a strategy that learns does so after this.

        Raises:
            StrategyError: too many children failed one after another.
        """
        self._asked.tell(trial)
        self._failures.tell(trial)

    def _add(self, proposal: Proposal) -> None:
        self._asked.add(proposal)
        self._ready.append(proposal)

    def _fill(self, end: float, propose: Callable[[], Proposal | None]) -> None:
        """Propose at once all with numbers below ``end``: when it is asked for, more may be known.

        It ends where the budget does, or where ``propose`` has nothing yet.
        """
        while self._asked.open and len(self._asked) < end:
            proposal = propose()
            if proposal is None:
                return
            self._add(proposal)
