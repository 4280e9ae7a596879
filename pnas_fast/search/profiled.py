"""The child that ``--profile`` asks for."""

from __future__ import annotations

from dataclasses import dataclass

from pnas_fast.cli.options import ConfigError
from pnas_fast.space import Cell, CellError


@dataclass(frozen=True, slots=True)
class Profiled:
    """The child to trace: the one of a number, or that of a cell.

    Raises:
        ConfigError: ``text`` is neither a number nor a cell.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            if not self.text.isdecimal():
                Cell.parse(self.text)
        except CellError as error:
            raise ConfigError(f"--profile {self.text}: neither a number nor a cell ({error})") from error

    def is_it(self, number: int, cell: Cell) -> bool:
        """Whether a child is the one."""
        if self.text.isdecimal():
            return number == int(self.text)
        return cell.canonical() == Cell.parse(self.text).canonical()
