"""What the page of each strategy's runs has of its own: a file of the strategy's name is all it takes."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from pnas_fast.report.section import StrategyPage


def page_of(strategy: str) -> StrategyPage:
    """The ``PAGE`` of the file of that name; of a strategy without one, a page with the common sections."""
    if strategy not in {module.name for module in iter_modules(__path__)}:
        return StrategyPage("Neural architecture search")
    page = import_module(f"{__name__}.{strategy}").PAGE
    assert isinstance(page, StrategyPage)
    return page
