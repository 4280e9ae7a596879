"""The page of a local search: where its best cell came from."""

from pnas_fast.report.lineage import lineage_sections
from pnas_fast.report.planned import unfinished_without_repeats
from pnas_fast.report.section import StrategyPage

PAGE = StrategyPage(
    title="Local architecture search",
    explanation="Local search changes one thing after another about a cell until that makes it better, and "
    "goes on from there; where no change does, it goes on from the best cell whose changes were not tried.",
    sections=lineage_sections,
    unfinished=unfinished_without_repeats,
)
