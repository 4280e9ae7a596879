"""The page of a random search: what every run has."""

from pnas_fast.report.planned import unfinished_budget
from pnas_fast.report.section import StrategyPage

PAGE = StrategyPage(
    title="Random architecture search",
    explanation="Random search draws cells evenly from the space and learns nothing from them; what another "
    "strategy finds beyond it is what that strategy is worth.",
    unfinished=unfinished_budget,
)
