"""The report of `bench/lease.py` as a table that is read at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gpu_children
from lease_process import Report

WORST = 12
"""Launches and checks that are named one by one."""


def lines(report: Report) -> list[str]:
    """First what is wrong, then predictions beside measurements, then every part."""
    return list(_lines(report))


def wrong_results(report: Report) -> list[str]:
    """Names of what parts found to be wrong, beside fp64."""
    results = [(report["parts"].get(name) or {}).get("result") or {} for name in ("checks", "prototype")]
    return [name for result in results for name in result.get("failed", [])]


def _lines(report: Report) -> Iterator[str]:
    parts = report["parts"]
    facts = (parts.get("facts") or {}).get("result") or {}
    where = "STAND-INS, times say nothing" if report["stand-ins"] else facts.get("card")
    yield f"{where}: torch {facts.get('torch')}, Triton {facts.get('triton')}, Python {facts.get('python')}"
    if "stopped" in report:
        yield f"stopped by {report['stopped']}"
    wrong = wrong_results(report)
    yield f"WRONG RESULTS: {', '.join(wrong)}" if wrong else "wrong results: none known"
    unwell = [f"{name}: {row['status']}" for name, row in parts.items() if row["status"] != "done"]
    yield from unwell
    yield ""
    yield f"{'predicted before, measured after':40} {'predicted':>18} {'measured':>12}"
    for row in report["predictions"]:
        expected = f"{_number(row['low'])} to {_number(row['high'])}"
        yield f"{row['name']:40} {expected:>18} {_number(row['measured']):>12}  {row['verdict']}"
    for name, row in parts.items():
        yield ""
        yield f"== {name}: {row['status']}, {row.get('seconds', 0)} s"
        yield from _part(name, row["result"])
        if "why" in row:
            yield row["why"].strip().splitlines()[-1]
    results = {name: row["result"] for name, row in parts.items() if isinstance(row["result"], dict)}
    yield ""
    yield from gpu_children.lines(results)


def _part(name: str, result: Any) -> Iterator[str]:
    if name == "facts" and result:
        result = {key: value for key, value in result.items() if key != "nvidia-smi"}
    elif name == "checks" and result:
        errors = sorted(result["errors"].items(), key=lambda row: -float(row[1]))
        result = {f"largest of {len(errors)}": None, **dict(errors[:WORST])}
    elif name == "replay by launch" and result:
        far = sorted(result["launches"], key=lambda row: row["roofline"] - row["microseconds"])
        result = result | {
            "launches": {f"{row['kernel']} {row['variant']}": _short(row) for row in far[:WORST]}
        }
    yield from _plain(result, "  ")


def _short(row: Report) -> Report:
    return {key: row[key] for key in ("microseconds", "roofline")}


def _plain(value: Any, indent: str) -> Iterator[str]:
    """Any JSON value: a line for what has only numbers and texts in it."""
    if isinstance(value, list):
        value = {row.get("name", row.get("kernel", place)) if isinstance(row, dict) else place: row
                 for place, row in enumerate(value)}  # fmt: skip
    if not isinstance(value, dict):
        yield from (f"{indent}{line}" for line in str(value).splitlines())
        return
    for key, own in value.items():
        if isinstance(own, dict) and not any(isinstance(inner, (dict, list)) for inner in own.values()):
            words = [
                f"{name} {_number(inner)}" for name, inner in own.items() if name not in ("name", "kernel")
            ]
            yield f"{indent}{key!s:44} {', '.join(words)}"
        elif isinstance(own, dict) or (isinstance(own, str) and "\n" in own):
            yield f"{indent}{key}:"
            yield from _plain(own, indent + "  ")
        else:
            yield f"{indent}{key!s:44} {_number(own)}"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_number, value))
    return str(value)
