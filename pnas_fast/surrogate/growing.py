"""Growing cells: all of a level's candidates scored, batch by batch, and the best of them kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pnas_fast.candidates import expand_batches
from pnas_fast.space import Codes
from pnas_fast.surrogate.checks import Floats
from pnas_fast.surrogate.ensemble import Surrogate
from pnas_fast.surrogate.selection import TopK, upper_confidence


@dataclass(frozen=True, slots=True)
class Growth:
    """How cells are grown: ``blocks`` B levels, ``beam`` K cells kept of each after the first.

    Candidates are chosen by the surrogate's mean plus ``kappa`` times the standard deviation over its
    members. ``predictor`` and ``refit`` are those of `Surrogate`. Of one-block cells ``first`` are trained, 0
    being all.
    """

    blocks: int
    beam: int
    operations: tuple[str, ...]
    predictor: str = "mlp"
    refit: str = "finetune"
    kappa: float = 0.0
    first: int = 0


@dataclass(frozen=True, slots=True)
class Grown:
    """The best candidates of a level: codes (K, b + 1, 4), predictions (K,), and of how many candidates."""

    codes: Codes
    predicted: Floats
    candidates: int


def grow(parents: Codes, surrogate: Surrogate, growth: Growth, scored: Callable[[int, int], None]) -> Grown:
    """Expand parents (M, b, 4) by every block, score the candidates and keep the best K.

    ``scored`` is told, batch by batch, how many candidates are scored and of how many parents those are.
    What is expected is the ensemble's mean, whatever the cells were chosen by.
    """
    best = TopK(growth.beam, parents.shape[1] + 1)
    count = 0
    for batch in expand_batches(parents, growth.operations):
        best.add(batch.codes, upper_confidence(surrogate.score(batch), growth.kappa))
        count += len(batch.codes)
        scored(count, int(batch.parent[-1]) + 1)
    return Grown(best.codes, surrogate.predict(best.codes), count)
