"""Progressive Neural Architecture Search, end to end.

>>> from pnas_fast import SearchConfig, search
>>> result = search(SearchConfig(blocks=2, beam=8))  # doctest: +SKIP
>>> print(result.best, result.accuracy, result.report)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from pnas_fast.search import search
from pnas_fast.space import OPERATIONS, Block, Cell
from pnas_fast.version import VERSION as __version__  # noqa: N811 (Python's name for it)

if TYPE_CHECKING:
    from pnas_fast.search.config import SearchConfig

__all__ = ["OPERATIONS", "Block", "Cell", "SearchConfig", "__version__", "search"]


def __getattr__(name: str) -> Any:
    # Later, so that what needs no PyTorch does not wait for it, nor a search before its workers begin to.
    if name == "SearchConfig":
        from pnas_fast.search.config import SearchConfig

        return SearchConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
