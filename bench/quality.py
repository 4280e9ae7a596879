"""Fails when a strategy needs clearly more children than it did until it finds one of a table's best cells.

    python bench/quality.py             compare with bench/quality.json; 1 if a strategy is worse
    python bench/quality.py --update    write what this version needs there

The baseline names a table (bench/table.py), the space that it is of, how often and for how long to search,
and for each strategy the median number of children until the cell that validation picks is among the best
1 % by the mean over the table's replicas; null where half of the searches never come there. Every search
draws replicas of its own. Nothing is timed, so that a slow machine gives the same; ``margin`` leaves room for
last bits of a surrogate, which may tip a choice over on another processor.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from pnas_fast.compare.command import main as compare
from pnas_fast.files import write_text

BASELINE = Path(__file__).with_name("quality.json")
TARGET = "the best 1 % of cells"

Medians = dict[str, float | None]
"""Children by strategy; None is more than the budget."""


@dataclass(frozen=True)
class Baseline:
    """What is in the file; ``table`` is a path beside it, ``children`` holds the medians."""

    table: str
    operations: list[str]
    blocks: int
    epochs: int
    beam: int
    budget: int
    repeats: int
    margin: float
    children: Medians

    def arguments(self, table: Path, out: Path) -> list[str]:
        """Of `python -m pnas_fast.compare`."""
        values = {
            "--strategies": ",".join(self.children), "--evaluator": f"table:{table}",
            "--operations": ",".join(self.operations), "--blocks": self.blocks, "--epochs": self.epochs,
            "--beam": self.beam, "--budget": self.budget, "--repeats": self.repeats, "--out": out,
        }  # fmt: skip
        return [*(str(part) for pair in values.items() for part in pair), "--independent"]


def measure(baseline: Baseline, table: Path) -> Medians:
    """The medians of this version.

    Raises:
        RuntimeError: the comparison could not be made; it has said why.
    """
    with TemporaryDirectory() as folder:
        out = Path(folder) / "compared"
        if compare(baseline.arguments(table, out)):
            raise RuntimeError("the strategies could not be compared")
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    (target,) = (one for one in summary["targets"] if one["title"] == TARGET)
    return {name: found["median"] for name, found in target["axes"]["cells"].items()}


def complaints(baseline: Baseline, found: Medians) -> list[str]:
    """A line for each strategy that is worse than it was by more than the margin."""
    lines = []
    for name, before in baseline.children.items():
        now = found[name]
        if before is not None and (inf if now is None else now) > before * (1 + baseline.margin):
            says = f"more than {baseline.budget}" if now is None else f"{now:g}"
            lines.append(
                f"{name}: {says} children until {TARGET}, baseline {before:g}, "
                f"allowed are {100 * baseline.margin:.0f} % more"
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 as good as before, 1 worse, 2 bad input."""
    parser = argparse.ArgumentParser(prog="bench/quality.py", description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write what this version needs to the baseline")
    wanted = parser.parse_args(arguments)
    try:
        baseline = Baseline(**json.loads(BASELINE.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        print(f"bench/quality.py: error: {BASELINE}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    found = measure(baseline, BASELINE.parent / baseline.table)
    if wanted.update:
        write_text(BASELINE, json.dumps({**asdict(baseline), "children": found}, indent=1) + "\n")
        return 0
    worse = complaints(baseline, found)
    for line in worse:
        print(f"bench/quality.py: worse: {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
