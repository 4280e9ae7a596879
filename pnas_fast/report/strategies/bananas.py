"""The page of a BANANAS search: how well each round was predicted, and where its best cell came from."""

from __future__ import annotations

from pnas_fast.report.lineage import lineage_sections
from pnas_fast.report.planned import unfinished_without_repeats
from pnas_fast.report.rounds import mean_rho, rounds_of, rounds_sections
from pnas_fast.report.section import Fact, Section, StrategyPage
from pnas_fast.report.text import correlation, duration
from pnas_fast.report.view import RunView


def _facts(view: RunView) -> list[Fact]:
    rounds = rounds_of(view)
    seconds = duration(sum(found.seconds for found in rounds))
    facts = [Fact("time in strategy", seconds, "mutating, fitting, scoring")] if rounds else []
    rho = mean_rho(rounds)
    return facts if rho is None else [*facts, Fact("mean ρ of a round", correlation(rho))]


def _sections(view: RunView) -> list[Section]:
    return rounds_sections(view) + lineage_sections(view)


PAGE = StrategyPage(
    title="Bayesian architecture search",
    explanation="BANANAS fits a surrogate, which predicts accuracy from a cell's description, to the results "
    "so far, lets it look at many mutations of the best cells and trains ten of those: that is a round. What "
    "its members disagree about has a chance beyond what they expect. Spearman's ρ tells how well the "
    "surrogate put a round's children in order: 1 is perfect, 0 is chance.",
    facts=_facts,
    sections=_sections,
    unfinished=unfinished_without_repeats,
)
