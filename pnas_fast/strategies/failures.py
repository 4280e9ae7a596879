"""When failures are no longer the cells' own."""

from __future__ import annotations

from pnas_fast.protocols import StrategyError, Trial

MOST = 20
"""Children that may fail one after another: with every cell failing there is nothing to choose by."""


class Failures:
    """Counts children that failed one after another."""

    def __init__(self) -> None:
        self._count = 0
        self._first = ""

    def tell(self, trial: Trial) -> None:
        """The next trial.

        Raises:
            StrategyError: it is the last of `MOST` that failed; the message holds the first one's error.
        """
        if trial.done:
            self._count = 0
            return
        if not self._count:
            self._first = f"{trial.cell}: {trial.measurement.error}"
        self._count += 1
        if self._count == MOST:
            raise StrategyError(f"{MOST} children failed one after another, the first was {self._first}")
