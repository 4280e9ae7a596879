"""Surrogates: predict a cell's accuracy from its codes, score candidates, select the most promising."""

from pnas_fast.surrogate.checks import SurrogateError
from pnas_fast.surrogate.ensemble import PREDICTORS, REFITS, Surrogate
from pnas_fast.surrogate.growing import Grown, Growth, grow
from pnas_fast.surrogate.ranking import rank_correlation
from pnas_fast.surrogate.selection import TopK, select_top, upper_confidence

__all__ = [
    "PREDICTORS",
    "REFITS",
    "Grown",
    "Growth",
    "Surrogate",
    "SurrogateError",
    "TopK",
    "grow",
    "rank_correlation",
    "select_top",
    "upper_confidence",
]
