"""Progressive Neural Architecture Search, end to end.

>>> from pnas_fast import SearchConfig, search
>>> result = search(SearchConfig(blocks=2, beam=8))  # doctest: +SKIP
>>> print(result.best, result.accuracy, result.report)  # doctest: +SKIP
"""

from pnas_fast.search import SearchConfig, search
from pnas_fast.space import OPERATIONS, Block, Cell
from pnas_fast.version import VERSION as __version__  # noqa: N811 (Python's name for it)

__all__ = ["OPERATIONS", "Block", "Cell", "SearchConfig", "__version__", "search"]
