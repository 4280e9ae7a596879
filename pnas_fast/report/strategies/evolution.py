"""The page of an evolution: where its best cell came from."""

from pnas_fast.report.lineage import lineage_sections
from pnas_fast.report.planned import unfinished_budget
from pnas_fast.report.section import StrategyPage

PAGE = StrategyPage(
    title="Regularised evolution",
    explanation="Evolution changes one thing about the best of a few cells drawn from a population, puts the "
    "child into it and takes the oldest out, however good that is.",
    sections=lineage_sections,
    unfinished=unfinished_budget,
)
