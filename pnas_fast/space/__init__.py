"""The PNAS search space: operations, blocks and cells, and when two cells are the same."""

from pnas_fast.space.cell import (
    CELL_INPUTS,
    MAX_BLOCKS,
    Block,
    Cell,
    CellError,
    Codes,
    check_blocks,
    check_operations,
    parse_blocks,
)
from pnas_fast.space.operations import OPERATION_TABLE, OPERATIONS, Operation, effort

__all__ = [
    "CELL_INPUTS",
    "MAX_BLOCKS",
    "OPERATIONS",
    "OPERATION_TABLE",
    "Block",
    "Cell",
    "CellError",
    "Codes",
    "Operation",
    "check_blocks",
    "check_operations",
    "effort",
    "parse_blocks",
]
