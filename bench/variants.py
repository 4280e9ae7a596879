"""Variants of progressive search side by side on the table of three levels.

    python bench/variants.py --out FOLDER [--repeats 40]

Each is a comparison of its own (python -m pnas_fast.compare --independent) in a folder of FOLDER, which may
be stopped and goes on. Prints, of each, the median number of children until the cell that validation picks
is among the best 1 % (none: half of the searches never come there), and the true accuracy of the last pick
with its standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnas_fast.compare.command import main as compare
from quality import TARGET
from table import FOLDER, TABLES

SPACE = TABLES["three-levels"]

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "learn-loss": ("--learn", "loss"),
    "kappa-1": ("--kappa", "1"),
    "from-scratch": ("--refit", "scratch"),
    "paths": ("--predictor", "paths"),
    "paths-loss": ("--predictor", "paths", "--learn", "loss"),
    "paths-kappa-1": ("--predictor", "paths", "--kappa", "1"),
    "beam-95": ("--beam", "95"),
}
"""Options beside those that all have. K is 45, so that a search has 10 + 45 + 45 children."""


def command(variant: Sequence[str], repeats: int, out: Path) -> list[str]:
    """Of the comparison of one variant."""
    return [
        "--strategies", "progressive", "--evaluator", f"table:{FOLDER / 'three-levels.csv.gz'}",
        "--operations", ",".join(SPACE.operations), "--blocks", str(SPACE.blocks),
        "--epochs", str(SPACE.epochs), "--data", SPACE.data, "--beam", "45",
        "--repeats", str(repeats), "--independent", "--out", str(out), *variant,
    ]  # fmt: skip


def row(name: str, summary: dict[str, Any]) -> str:
    """What a comparison found."""
    (target,) = (one for one in summary["targets"] if one["title"] == TARGET)
    children = target["axes"]["cells"]["progressive"]["median"]
    pick = summary["strategies"]["progressive"]["accuracy"]["true"]["1"]["end"]
    until = "none" if children is None else f"{children:g}"
    return f"{name:14} {until:>5} children, pick {100 * pick['mean']:.2f} ± {100 * pick['error']:.2f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: that of the first comparison that fails."""
    parser = argparse.ArgumentParser(prog="bench/variants.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    wanted = parser.parse_args(arguments)
    rows = []
    for name in wanted.only:
        out = wanted.out / name
        if status := compare(command(VARIANTS[name], wanted.repeats, out)):
            return status
        rows.append(row(name, json.loads((out / "summary.json").read_text(encoding="utf-8"))))
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
