"""The PNAS search space: operations, blocks and cells, and when two cells are the same."""

from pnas_fast.space.cell import (
    CELL_INPUTS,
    MAX_BLOCKS,
    OPERATIONS,
    Block,
    Cell,
    CellError,
    Codes,
    check_blocks,
    check_operations,
    parse_blocks,
)

__all__ = [
    "CELL_INPUTS",
    "MAX_BLOCKS",
    "OPERATIONS",
    "Block",
    "Cell",
    "CellError",
    "Codes",
    "check_blocks",
    "check_operations",
    "parse_blocks",
]
