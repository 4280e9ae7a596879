"""The benchmark gate on stored times: what turns it red, what does not, and what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from platform import machine
from typing import Any

import pytest

import gate
from baseline import Baseline
from cases import CASES, STEPS, Case
from ratios import Times

SEP, ADD, STEP = "sep5x5 half, stride 1, 16x16x48", "add norm + norm, stride 1, 8x8x96", STEPS[0].name
RATIOS = {SEP: 0.4, ADD: 0.7, STEP: 0.35}
"""Of the stored baseline, whose margin is 20 %."""


class Stored:
    """Stands for the stopwatch: each measurement of a case takes its next stored ratio, the last for ever."""

    def __init__(self, ratios: dict[str, list[float]]) -> None:
        self.ratios = ratios
        self.measured: list[str] = []

    def __call__(self, case: Case) -> Times:
        self.measured.append(case.name)
        ratios = self.ratios[case.name]
        return Times(ratios.pop(0) if len(ratios) > 1 else ratios[0], 1.0)


class Bench:
    """A gate whose baseline, machine and times are stored ones."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.path = folder / "baseline.json"
        patch.setattr(gate, "BASELINE", self.path)
        patch.setattr(gate, "instruction_set", lambda: "avx2")
        patch.setattr(gate, "PYTORCH", {})  # the tests after these run on whatever it can
        self.write(RATIOS)

    def write(self, ratios: dict[str, float], **changes: Any) -> None:
        measured = {"torch": gate.TORCH, "ratios": ratios}
        content = {"margin": 0.2, "step_at_most": 0.67, "instruction_sets": {"avx2": measured}}
        self.path.write_text(json.dumps(content | changes))

    def run(self, *arguments: str, **ratios: float | list[float]) -> tuple[int, list[str]]:
        """Exit status, and the cases in the order they were measured; keywords: sep, add, step."""
        names = {"sep": SEP, "add": ADD, "step": STEP}
        times = {name: [ratio] for name, ratio in RATIOS.items()}
        for key, found in ratios.items():
            times[names[key]] = found if isinstance(found, list) else [found]
        stored = Stored(times)
        self._patch.setattr(gate, "CASES", [Case(name, 1, lambda backend: list) for name in times])
        self._patch.setattr(gate, "measure", stored)
        self._patch.setattr(gate, "measure_apart", stored)
        return gate.main(arguments), stored.measured


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_as_fast_as_before_is_green(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run() == (0, [SEP, ADD, STEP])
    out = capsys.readouterr()
    assert out.err == ""
    assert [line for line in out.out.splitlines() if SEP in line and "baseline 0.400" in line]


def test_a_slowed_kernel_is_red_and_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Half as slow again, and it was measured four times before it was called so."""
    status, measured = bench.run(sep=0.6)
    assert status == 1
    assert measured == [SEP, ADD, STEP, SEP, SEP, SEP]
    assert capsys.readouterr().err.splitlines() == [
        f"bench/gate.py: worse: {SEP}: 0.600 of eager's time, baseline 0.400: 50% worse, allowed are 20%"
    ]


def test_a_case_is_measured_in_a_process_of_its_own() -> None:
    times = gate.measure_apart(next(case for case in CASES if "norm + norm, stride 1, 8x8" in case.name))
    assert times.fused > 0
    assert times.eager > 0


def test_within_the_margin_is_green(bench: Bench) -> None:
    assert bench.run(sep=0.47, add=0.83) == (0, [SEP, ADD, STEP])
    assert bench.run(sep=0.49)[0] == 1


def test_faster_is_green(bench: Bench) -> None:
    assert bench.run(sep=0.1)[0] == 0


@pytest.mark.parametrize("times", [[0.9, 0.41], [0.9, 0.8, 0.47]])
def test_a_hiccup_is_green(bench: Bench, times: list[float]) -> None:
    measurements = len(times)
    status, measured = bench.run(sep=list(times))
    assert status == 0
    assert measured.count(SEP) == measurements


def test_every_worse_case_is_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(sep=0.6, add=[2.0, 1.4, 1.5])[0] == 1
    complaints = capsys.readouterr().err
    assert SEP in complaints
    assert f"{ADD}: 1.400 of eager's time, baseline 0.700: 100% worse" in complaints


def test_a_case_that_only_the_baseline_has_is_red(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write({**RATIOS, "sep9x9 half": 0.5})
    assert bench.run()[0] == 1
    assert "sep9x9 half: in the baseline, but not measured" in capsys.readouterr().err


def test_a_case_without_a_baseline_is_red(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write({SEP: 0.4, STEP: 0.35})
    assert bench.run()[0] == 1
    assert f"{ADD}: has no baseline" in capsys.readouterr().err


def test_another_instruction_set_is_red_unless_allowed_and_has_the_limit_of_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "instruction_set", lambda: "plain")
    said = "bench/gate.py: not compared: no baseline for instruction set plain (there are: avx2): only"
    assert bench.run(sep=5.0, add=5.0, step=0.66)[0] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert bench.run("--allow-uncompared", sep=5.0, add=5.0, step=0.66)[0] == 0
    assert capsys.readouterr().err.splitlines() == [line]
    assert bench.run("--allow-uncompared", step=0.68)[0] == 1
    assert f"worse: {STEP}: 0.680 of eager's time, at most 0.670" in capsys.readouterr().err


def test_allowing_it_changes_nothing_where_there_is_a_baseline(bench: Bench) -> None:
    assert bench.run("--allow-uncompared")[0] == 0
    assert bench.run("--allow-uncompared", sep=0.6)[0] == 1


def test_the_committed_baseline_has_every_instruction_set_and_every_case() -> None:
    baseline = Baseline.read(Path(gate.__file__).with_name("baseline.json"))
    assert set(baseline.instruction_sets) == {"avx512", "avx512vl", "avx2", "plain"}
    for measured in baseline.instruction_sets.values():
        assert set(measured.ratios) == {case.name for case in CASES}


HELD = """
import os, sys
import gate
for name in sys.argv[1:]:
    gate.hold_pytorch_to(name)
import torch
print(torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA"))
"""


@pytest.mark.skipif(machine() != "x86_64", reason="other processors have one instruction set")
@pytest.mark.parametrize(("name", "held"), [("plain", "DEFAULT SSE41"), ("avx512", "")])
def test_pytorch_is_held_to_what_our_kernels_use(name: str, held: str) -> None:
    """Importing PyTorch settles nothing yet."""
    environment = {key: value for key, value in os.environ.items() if "_CPU_" not in key}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    said = [
        subprocess.check_output([sys.executable, "-c", HELD, *names], env=environment, text=True).strip()
        for names in ([name], [])
    ]
    assert said[0] == (held or said[1])


def test_a_generous_baseline_does_not_lift_the_limit_of_steps(bench: Bench) -> None:
    bench.write({**RATIOS, STEP: 0.9})
    assert bench.run(step=0.9)[0] == 1


def test_another_torch_is_mentioned(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write(RATIOS, instruction_sets={"avx2": {"torch": "1.0", "ratios": RATIOS}})
    assert bench.run()[0] == 0
    assert f"the baseline is of torch 1.0, this is {gate.TORCH}" in capsys.readouterr().out


def test_a_new_baseline_keeps_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of three passes, for this machine's instruction set alone."""
    monkeypatch.setattr(gate, "instruction_set", lambda: "plain")
    status, measured = bench.run("--update", sep=[0.9, 0.5, 0.8])
    assert (status, measured) == (0, 3 * [SEP, ADD, STEP])
    written = json.loads(bench.path.read_text())
    assert written["margin"] == 0.2
    assert written["instruction_sets"]["avx2"]["ratios"] == RATIOS
    assert written["instruction_sets"]["plain"]["ratios"] == {**RATIOS, SEP: 0.5}
    assert bench.run(sep=0.5)[0] == 0
    assert list(bench.path.parent.iterdir()) == [bench.path]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"margin": -1}, "margin is -1, allowed is a number above 0"),
        ({"margin": float("nan")}, "margin is nan, allowed is a number above 0"),
        ({"step_at_most": "fast"}, "step_at_most is 'fast'"),
        ({"instruction_sets": []}, "instruction_sets is [], allowed is an object"),
        ({"instruction_sets": {"avx2": {"ratios": {}}}}, "avx2 holds ['ratios'], allowed are"),
        ({"instruction_sets": {"avx2": {"torch": "2", "ratios": {"x": True}}}}, "x is True, allowed"),
        ({"more": 1}, "the file holds"),
    ],
)
def test_a_malformed_baseline_is_one_line(
    bench: Bench, changes: dict[str, Any], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(RATIOS, **changes)
    assert bench.run() == (2, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert str(bench.path) in line
    assert complaint in line


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_baseline_that_is_no_json_object_is_one_line(
    bench: Bench, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.path.unlink() if content is None else bench.path.write_text(content)
    assert bench.run("--update") == (2, [])
    assert len(capsys.readouterr().err.splitlines()) == 1
