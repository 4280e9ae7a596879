"""Fails when a fused CPU operation, beside plain PyTorch, has become slower than it was.

    python bench/gate.py                       compare with bench/baseline.json; 1 if anything is worse
    python bench/gate.py --allow-uncompared    the same where its instruction set has no baseline
    python bench/gate.py --update              write this machine's ratios there

Both sides are timed in turns in one process (see `ratios`) and only their ratio counts, so that a slower
machine of the same instruction set gives the same. A case that seems worse is measured up to three times
more, each time in a process of its own, and each side's least time counts: a hiccup passes, a slower kernel
does not. Without a baseline for this machine's instruction set only the limit of whole training steps can be
checked: a failure unless it is allowed.

PNAS_FAST_CPU=avx2 (or another set that this machine has) measures as on a machine with no wider one: PyTorch
is then held to it too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from baseline import Baseline, BaselineError, Measured
from cases import CASES, STEPS, Case
from pnas_fast._cpu_kernels import instruction_set
from ratios import Times, measure

TORCH = torch.__version__.split("+")[0]
BASELINE = Path(__file__).with_name("baseline.json")
MEASURED_AGAIN = 3
PASSES = 3
"""Over all cases, for a new baseline: its ratios are of the least times of all passes."""

PYTORCH = {"avx2": ("avx2", "AVX2"), "plain": ("default", "SSE41")}
"""What PyTorch and oneDNN call the widest instruction set of a machine, where it is not AVX-512."""


class Gate:
    """What a baseline says of each case on one instruction set."""

    def __init__(self, baseline: Baseline, instruction_set: str) -> None:
        self._margin = baseline.margin
        self._measured = baseline.instruction_sets.get(instruction_set)
        self._steps = {case.name: baseline.step_at_most for case in STEPS}
        self._others = sorted(baseline.instruction_sets)
        self._instruction_set = instruction_set

    def uncompared(self) -> str | None:
        """Why there is nothing to compare with; None where there is."""
        if self._measured is not None:
            return None
        others = " ".join(self._others) or "none"
        return (
            f"no baseline for instruction set {self._instruction_set} (there are: {others}): only whole "
            "training steps have a limit; make bench-baseline writes one"
        )

    def notes(self) -> list[str]:
        """What limits how much a comparison says."""
        if self._measured is None or self._measured.torch == TORCH:
            return []
        return [f"the baseline is of torch {self._measured.torch}, this is {TORCH}"]

    def complaint(self, case: str, ratio: float) -> str | None:
        """Why a case's ratio is too bad; None where it is not."""
        if ratio > self._steps.get(case, ratio):
            return f"{ratio:.3f} of eager's time, at most {self._steps[case]:.3f} is allowed on any machine"
        if self._measured is None:
            return None
        if case not in self._measured.ratios:
            return "has no baseline; make bench-baseline"
        expected = self._measured.ratios[case]
        worse = ratio / expected - 1
        if worse <= self._margin:
            return None
        return (
            f"{ratio:.3f} of eager's time, baseline {expected:.3f}: {worse:.0%} worse, "
            f"allowed are {self._margin:.0%}"
        )

    def row(self, case: str, ratio: float) -> str:
        """A line of the table."""
        expected = None if self._measured is None else self._measured.ratios.get(case)
        beside = "" if expected is None else f"   baseline {expected:5.3f}  {ratio / expected - 1:+5.0%}"
        return f"{case:50} {ratio:6.3f} of eager, {1 / ratio:5.2f}x{beside}"

    def not_measured(self, cases: set[str]) -> list[str]:
        """Complaints about cases that only the baseline has."""
        known = set() if self._measured is None else set(self._measured.ratios)
        gone = sorted(known - cases)
        return [f"{case}: in the baseline, but not measured; make bench-baseline" for case in gone]


def check(gate: Gate) -> list[str]:
    """Measure every case, print the table, and return what is wrong."""
    for note in gate.notes():
        print(note)
    found: dict[str, Times] = {}

    def complaint(case: str) -> str | None:
        return gate.complaint(case, found[case].ratio)

    _measure(CASES, found, gate)
    for _ in range(MEASURED_AGAIN):
        if suspects := [case for case in CASES if complaint(case.name)]:
            print("measured again:")
            _measure(suspects, found, gate, measure_apart)
    complaints = [f"{case}: {text}" for case in found if (text := complaint(case))]
    return complaints + gate.not_measured(set(found))


def new_ratios(gate: Gate) -> Measured:
    """Every case's ratio on this machine, beside those there were."""
    found: dict[str, Times] = {}
    for number in range(PASSES):
        print(f"pass {number + 1} of {PASSES}")
        _measure(CASES, found, gate)
    return Measured(TORCH, {case: round(times.ratio, 4) for case, times in found.items()})


def measure_apart(case: Case) -> Times:
    """Measure in a new process: where its memory came to lie can make small work half as slow again."""
    command = [sys.executable, __file__, "--time", case.name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    fused, eager = map(float, done.stdout.split())
    return Times(fused, eager)


def _measure(
    cases: Sequence[Case],
    found: dict[str, Times],
    gate: Gate,
    how: Callable[[Case], Times] | None = None,
) -> None:
    for case in cases:
        times = (how or measure)(case)
        found[case.name] = found.get(case.name, times).best(times)
        print(gate.row(case.name, found[case.name].ratio), flush=True)


def hold_pytorch_to(instruction_set: str) -> None:
    """Let PyTorch use nothing wider than our kernels do; before its first operation."""
    if instruction_set in PYTORCH:
        os.environ["ATEN_CPU_CAPABILITY"], os.environ["ONEDNN_MAX_CPU_ISA"] = PYTORCH[instruction_set]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 as fast as before, 1 worse or not compared, 2 bad input."""
    parser = argparse.ArgumentParser(prog="bench/gate.py", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--update", action="store_true", help="write this machine's ratios to the baseline")
    what.add_argument(
        "--allow-uncompared",
        action="store_true",
        help="no failure where this instruction set has no baseline",
    )
    what.add_argument("--time", metavar="CASE", help="print the seconds of one case, fused and eager")
    wanted = parser.parse_args(arguments)
    if wanted.time is not None:
        hold_pytorch_to(instruction_set())
        (case,) = (case for case in CASES if case.name == wanted.time)
        print(*measure(case))
        return 0
    try:
        baseline = Baseline.read(BASELINE)
    except BaselineError as error:
        print(f"bench/gate.py: error: {error}", file=sys.stderr)
        return 2
    name = instruction_set()
    hold_pytorch_to(name)
    gate = Gate(baseline, name)
    if wanted.update:
        baseline.instruction_sets[name] = new_ratios(gate)
        baseline.write(BASELINE)
        return 0
    complaints, uncompared = check(gate), gate.uncompared()
    for complaint in complaints:
        print(f"bench/gate.py: worse: {complaint}", file=sys.stderr)
    if uncompared:
        print(f"bench/gate.py: not compared: {uncompared}", file=sys.stderr)
    return 1 if complaints or (uncompared and not wanted.allow_uncompared) else 0


if __name__ == "__main__":
    sys.exit(main())
