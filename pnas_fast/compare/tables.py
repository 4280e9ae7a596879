"""The tables of a comparison, as texts: what is printed and what the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pnas_fast.compare.curves import MOST
from pnas_fast.report import text

AXIS_NAMES = {"cells": "children", "images": "images", "seconds": "time"}

ON_THE_PAGE = ("targets_images", "targets_seconds", "ways_cells", "ways_images", "ways_seconds")
"""Tables that are not printed."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table: its name in the page, its title, its columns, its rows, and a remark that may be empty.

    The first column is text, others are numbers.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    remark: str = ""


def tables_of(summary: dict[str, Any]) -> list[TextTable]:
    """All tables of what `summarise` found."""
    tables = [_cost(summary)]
    tables += [_accuracy(summary, most) for most in MOST if _has(summary, most)]
    tables += [_hypervolume(summary)]
    tables.append(_picks(summary))
    tables += [_in_table(summary)] if summary["table"] else []
    for axis in summary["axes"]:
        tables += [_targets(summary, axis), _ways(summary, axis)]
    tables += [_tests(summary)] if summary["tests"] else []
    return [table for table in tables if table.rows]


def _has(summary: dict[str, Any], most: int) -> bool:
    told = [one["accuracy"][summary["reported"]][str(most)] for one in summary["strategies"].values()]
    return any(one["end"]["mean"] is not None for one in told)


def _cost(summary: dict[str, Any]) -> TextTable:
    rows = []
    for name, one in summary["strategies"].items():
        counts = [text.plain(round(one[what], 1)) for what in ("asked", "trained", "failed")]
        rest = text.magnitude(one["images"]), text.duration(one["seconds"]), text.correlation(one["rho"])
        rows.append((name, str(one["n"]), *counts, *rest))
    return TextTable(
        "cost",
        "What a run takes, in the mean",
        ("strategy", "n", "asked", "trained", "failed", "images", "time", "ρ"),
        rows,
        "n: runs. Time: of children, and the strategy's own where its notes tell. ρ: rank correlation of a "
        "surrogate's expectations with what came.",
    )


def _accuracy(summary: dict[str, Any], most: int) -> TextTable:
    stops = summary["stops"][:-1]
    rows = []
    for name, one in summary["strategies"].items():
        found = one["accuracy"][summary["reported"]][str(most)]
        told = [_mean(found["at"][str(stop)]) if stop <= ceil(one["trained"]) else "ended" for stop in stops]
        end = found["end"]
        rows.append((name, *told, _mean(end), _interval(end["interval"]), text.percent(found["auc"], 2)))
    best = f"the best {most} cells" if most > 1 else "the best cell"
    return TextTable(
        f"top{most}",
        f"T_{most}: {summary['measures'][0]['title']} of {best}, %",
        ("strategy", *(f"after {stop:,}" for stop in stops), "at the end", "95 %", "area"),
        rows,
        "±: standard error over runs. 95 %: bootstrap interval. Area: the mean over all numbers of children."
        if most == MOST[0]
        else "",
    )


def _hypervolume(summary: dict[str, Any]) -> TextTable:
    found = {name: one["hypervolume"] for name, one in summary["strategies"].items()}
    rows = [
        (name, *(f"{value:.4f}" for value in (one["mean"], *(one["interval"] or ()))))
        for name, one in found.items()
        if one is not None
    ]
    has_interval = bool(rows) and len(rows[0]) > 2
    return TextTable(
        "hypervolume",
        "Hypervolume of the front at the end",
        ("strategy", "mean", *("95 % from", "to") * has_interval),
        rows,
        "Of accuracy above 0 and of what is saved of each cost's limit, or of the most that a cell costs.",
    )


def _picks(summary: dict[str, Any]) -> TextTable:
    measures = [one["name"] for one in summary["measures"]]
    finals = {one["final"]["measure"] for one in summary["strategies"].values() if one["final"]}
    rows = []
    for name, one in summary["strategies"].items():
        told = [_mean(one["accuracy"][measure]["1"]["end"]) for measure in measures]
        final = [_mean(one["final"]) if one["final"] else text.MISSING] if finals else []
        rows.append((name, *told, _points(one["regret"]), *final))
    remark = f"Regret: points to the best pick of all runs, by {summary['reported']} accuracy."
    if finals:
        remark += (
            f" Final: {' or '.join(sorted(finals))} accuracy of the cell that the final choice takes, the "
            "mean over its trainings with fresh seeds, which no other column counts."
        )
    return TextTable(
        "picks",
        "The cell that validation picks, %",
        ("strategy", *measures, "regret", *["final"] * bool(finals)),
        rows,
        remark,
    )


def _in_table(summary: dict[str, Any]) -> TextTable:
    table = summary["table"]
    rows = [
        (name, text.share(one["rank_in_table"]), _points(one["regret_in_table"]))
        for name, one in summary["strategies"].items()
    ]
    return TextTable(
        "table",
        f"The pick among the table's {table['cells']:,} cells",
        ("strategy", "cells that are better", "points to the best"),
        rows,
        f"True accuracy: the mean of {text.plural(table['replicas'], 'replica', 'replicas')}; the best cell "
        f"has {text.percent(table['best'], 2)}.",
    )


_TARGET_COLUMNS = ("target", "", "÷ all", "÷ own", "95 %", "median", "reached")


def _targets(summary: dict[str, Any], axis: str) -> TextTable:
    reference, what = summary["reference"], AXIS_NAMES[axis]
    return TextTable(
        f"targets_{axis}",
        f"{what.capitalize()} until the target",
        ("target", what, *_TARGET_COLUMNS[2:]),
        _target_rows(summary, axis, is_way=False),
        f"÷ all: over {reference}'s whole budget, as the paper reads it. ÷ own: over what {reference} itself "
        "needed, with its bootstrap interval. Median: of single runs. >: censored, the budget ended before.",
    )


def _ways(summary: dict[str, Any], axis: str) -> TextTable:
    reference, what = summary["reference"], AXIS_NAMES[axis]
    return TextTable(
        f"ways_{axis}",
        f"{what.capitalize()} until a part of the way from random's end to {reference}'s",
        ("target", what, *_TARGET_COLUMNS[2:]),
        _target_rows(summary, axis, is_way=True),
    )


def _target_rows(summary: dict[str, Any], axis: str, is_way: bool) -> list[tuple[str, ...]]:
    """For each target a row with nothing but its name, then one for each strategy."""
    rows: list[tuple[str, ...]] = []
    for target in summary["targets"]:
        if target["is_way"] == is_way:
            title = f"T_{target['most']} {100 * target['value']:.2f} %,\n{target['title']}"
            rows.append((title, *[""] * (len(_TARGET_COLUMNS) - 1)))
            rows += [(f"  {name}", *_needed(found, axis)) for name, found in target["axes"][axis].items()]
    return rows


def _needed(found: dict[str, Any], axis: str) -> tuple[str, ...]:
    """What a strategy needed, and how many times the reference's; censored as more than its budget."""
    write = {"cells": text.count, "images": text.magnitude, "seconds": text.duration}[axis]
    censored = found["cost"] is None
    return (
        f"> {write(found['whole'])}" if censored else write(found["cost"]),
        _ratio(found["ratio_to_budget"], censored, found["least_ratio_to_budget"]),
        _ratio(found["ratio"], censored, found["least_ratio"]),
        _ratio_interval(found["ratio_interval"]),
        ">" if found["median"] is None else write(found["median"]),
        f"{found['reached']} of {found['runs']}",
    )


def _tests(summary: dict[str, Any]) -> TextTable:
    rows = []
    for one in summary["tests"]:
        told = [text.plain(round(one["improvement"], 3)), text.plain(one["u"]), _p(one["p"]), _p(one["holm"])]
        rows.append((f"T_{one['most']} {summary['reference']} : {one['other']}", *told))
    return TextTable(
        "tests",
        "Mann-Whitney tests at the end",
        ("pair", "P(better)", "U", "p", "Holm's p"),
        rows,
        "P(better): the chance that a run of the first is better than one of the second. p: "
        + ("exact." if all(one["exact"] for one in summary["tests"]) else "normal approximation."),
    )


def print_tables(console: Console, tables: Sequence[TextTable]) -> None:
    """Print tables; they fit 80 columns with six strategies and two stops."""
    for table in tables:
        shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for index, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if index else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(Text(table.title, style="bold"))
        console.print(shown)
        if table.remark:
            console.print(Text(table.remark, style="dim"))
        console.print()


def print_rigour(console: Console, summary: dict[str, Any]) -> None:
    """Print what must be known to believe a comparison."""
    console.print(Text("What must be known to believe it", style="bold"))
    for point in summary["rigour"]:
        holds = {True: "yes: ", False: "NO: ", None: ""}[point["holds"]]
        console.print(Text(f"{point['what']}: {holds}{point['found']}"))
    console.print()


def _mean(spread: dict[str, Any]) -> str:
    if spread["mean"] is None:
        return text.MISSING
    error = "" if spread["error"] is None else f" ± {100 * spread['error']:.2f}"
    return f"{100 * spread['mean']:.2f}{error}"


def _interval(interval: list[float] | None) -> str:
    return text.MISSING if interval is None else f"{100 * interval[0]:.2f}–{100 * interval[1]:.2f}"


def _points(value: float | None) -> str:
    return text.MISSING if value is None else f"{100 * value:.2f}"


def _ratio(value: float | None, censored: bool, least: float | None) -> str:
    if value is not None:
        return f"{value:.2f}"
    return f"> {least:.2f}" if censored and least is not None else text.MISSING


def _ratio_interval(interval: list[float | None] | None) -> str:
    """Two ends, of which the upper or both may be censored."""
    if interval is None:
        return text.MISSING
    return "–".join(dict.fromkeys(">" if value is None else f"{value:.2f}" for value in interval))


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
