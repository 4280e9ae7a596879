"""``python -m pnas_fast.zoo``: the published networks and their figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pnas_fast.cli.commands import Parser
from pnas_fast.cli.streams import run_command
from pnas_fast.zoo.table import Row, rows

DESCRIPTION = """\
The networks that create_model builds by name, and the published tables anew: parameters and multiply-adds
of each as counted here (convolutions and classifier, one image), as published, and the difference. Exits with
status 1 where a figure is further from the published one than 5 % (1 % for PNASNet-5) for no known reason."""

WIDTH = 150
"""Columns of the table where the output is no terminal."""


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 where every figure is as published or its difference explained, else 1."""
    Parser("python -m pnas_fast.zoo", DESCRIPTION).parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    found = rows()
    console.print(_table(found))
    notes = [row for row in found if row.published.mismatch]
    for number, row in enumerate(notes, 1):
        console.print(f"[{number}] {row.title}: {row.published.mismatch}", markup=False, highlight=False)
    failing = [row.title for row in found if row.fails]
    if failing:
        print(f"python -m pnas_fast.zoo: not as published: {', '.join(failing)}", file=sys.stderr)
    return 1 if failing else 0


def _table(found: list[Row]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("create_model(…)", no_wrap=True)
    table.add_column("network")
    for name in ("parameters", "published", "difference", "multiply-adds", "published", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("published accuracy or error, %", no_wrap=True)
    notes = 0
    for row in found:
        notes += bool(row.published.mismatch)
        mark = f" [{notes}]" if row.published.mismatch else ""
        parameters, multiply_adds = row.differences
        table.add_row(
            row.name or "–",
            row.title + mark.replace("[", r"\["),
            _count(row.parameters),
            f"{row.published.parameters:g} M",
            _percent(parameters),
            _count(row.multiply_adds),
            "–" if row.published.multiply_adds is None else f"{row.published.multiply_adds:,g} M",
            _percent(multiply_adds),
            row.published.accuracy,
            style="red" if row.fails else "yellow" if row.outside or not row.name else "",
        )
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.2f} %"


if __name__ == "__main__":
    sys.exit(main())
