"""Neural architecture search, end to end.

>>> from pnas_fast import SearchConfig, run_search
>>> result = run_search(SearchConfig(blocks=2, beam=8))  # doctest: +SKIP
>>> print(result)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

# First: it remembers the cores this process may use, of which importing torch may leave one.
from pnas_fast import threads as threads
from pnas_fast.api import run_search
from pnas_fast.version import VERSION as __version__  # noqa: N811 (Python's name for it)

if TYPE_CHECKING:
    from pnas_fast.search.config import SearchConfig
    from pnas_fast.search.result import SearchResult
    from pnas_fast.space import OPERATIONS, Block, Cell

__all__ = ["OPERATIONS", "Block", "Cell", "SearchConfig", "SearchResult", "__version__", "run_search"]

_LATER = {
    "SearchConfig": "pnas_fast.search.config",
    "SearchResult": "pnas_fast.search.result",
    "OPERATIONS": "pnas_fast.space",
    "Block": "pnas_fast.space",
    "Cell": "pnas_fast.space",
}


def __getattr__(name: str) -> Any:
    # Later, so that what needs no PyTorch does not wait for it, nor a search before its workers begin to.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
