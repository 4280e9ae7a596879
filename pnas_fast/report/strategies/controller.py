"""The page of a controller: how its policy learned."""

from __future__ import annotations

from pnas_fast.report.planned import unfinished_budget
from pnas_fast.report.section import Chart, Fact, Section, StrategyPage
from pnas_fast.report.updates import draw_updates, updates_of
from pnas_fast.report.view import RunView

_CHART = Chart("updates", draw_updates, "Mean accuracy of each batch of proposals, and entropy of the policy")


def _facts(view: RunView) -> list[Fact]:
    updates = updates_of(view)
    if not updates:
        return []
    first, last = updates[0].entropy, updates[-1].entropy
    return [Fact("entropy of the policy", f"{last:.1f} nats", f"{first:.1f} before it learned")]


def _sections(view: RunView) -> list[Section]:
    return [Section("updates", "How the policy learned", charts=(_CHART,))] if updates_of(view) else []


PAGE = StrategyPage(
    title="Controller, learned by policy gradient",
    explanation="A controller draws cells from a policy, a distribution over the choices that make a cell. "
    "After each batch it makes what did better than cells before more likely, and what did worse less so.",
    facts=_facts,
    sections=_sections,
    unfinished=unfinished_budget,
)
