"""The GPU benchmark on the CPU: a script that a card sees rarely must not fail for a slip.

Clocks, graphs and the profiler are stand-ins; kernels run in the interpreter.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gpu
import gpu_cases
import gpu_timing
from pnas_fast.kernels.cost import H100
from pnas_fast.kernels.triton.launch import recording

ROOT = Path(__file__).parent.parent
HAS_CARD = torch.cuda.is_available()


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A card that is none, with one small case and a small child."""

    def milliseconds(function: Callable[[], Any]) -> float:
        function()
        return 2.0

    def kernel_microseconds(function: Callable[[], Any]) -> list[tuple[str, float]]:
        with recording() as launches:
            function()
        return [("memset", 1.0), *((launch.kernel.__name__, 5.0) for launch in launches)]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Stand In")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(gpu, "card_numbers", lambda: (4, 90))
    monkeypatch.setattr(gpu_timing, "graphed", lambda function: function)
    monkeypatch.setattr(gpu_timing, "milliseconds", milliseconds)
    monkeypatch.setattr(gpu_timing, "kernel_microseconds", kernel_microseconds)
    monkeypatch.setattr(gpu_timing, "ceilings", lambda: H100)
    # The interpreter truncates to bf16 where cards round.
    monkeypatch.setattr(gpu_cases, "LIMITS", {torch.float32: 1e-4, torch.bfloat16: 6e-2})
    monkeypatch.setattr(gpu_cases, "cases", lambda: [gpu_cases.dense(8, 6, 4, (1, 1), (1, 1))])
    monkeypatch.setattr(gpu_cases, "small_cases", lambda: gpu_cases.cases())
    for name, value in {"BATCH": 2, "CELL": "0:identity+1:identity", "REPEATS": 1, "FILTERS": 2}.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "SIZE", 4)
    return monkeypatch


class InThisProcess:
    """Runs the script's own commands where it is called, and a tool that is none."""

    def __init__(self, command: list[str], **_: Any) -> None:
        self.command, self.stdout, self.stderr = command, "", ""
        arguments = command[command.index(gpu.__file__) + 1 :]
        if "--torch-compile" in arguments:
            self.returncode, self.stdout = 0, 'words\n{"torch.compile: step, ms": 3.0}\n'
        else:
            self.returncode = gpu.main(arguments)

    def wait(self, seconds: float) -> int:
        assert seconds > 0
        return self.returncode

    def kill(self) -> None:
        """It has ended."""


def test_everything_runs_and_is_written(
    card: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card.setattr(subprocess, "Popen", InThisProcess)
    card.setattr(subprocess, "run", InThisProcess)
    card.setattr(gpu.shutil, "which", lambda name: f"/tools/{name}")
    assert gpu.main(["--out", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]
    assert report["compilation"] == {"processes": 1, "exit statuses": [0]}
    assert report["checks"]["failed"] == []
    assert set(report["checks"]["errors"]) == {"dense 1×1 8@4 float32", "dense 1×1 8@4 bfloat16"}
    assert report["operation dense 1×1 8@4"]["fused both"] == 2.0
    assert 0 < report["operation dense 1×1 8@4"]["roofline both"] < 1
    assert report["kernels of a step"]["add_kernel"]["launches"] == 3
    assert report["steps of triton"]["triton: step in a CUDA graph, ms"] == 2.0
    assert report["steps of torch.compile"] == {"torch.compile: step, ms": 3.0}
    assert report["compute-sanitizer"] == "clean"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Stand In: 2 checks, failed: none; parts that did not finish: none"
    assert any(line.startswith("add_kernel") and "3 launches" in line for line in lines)


def test_a_part_that_fails_leaves_the_others_their_results(
    card: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA says no")

    card.setattr(gpu_timing, "ceilings", broken)
    card.setattr(gpu_timing, "kernel_microseconds", broken)
    card.setattr(subprocess, "Popen", broken)
    card.setattr(gpu.shutil, "which", lambda name: None)
    assert gpu.main(["--no-compile", "--out", str(tmp_path / "out.json")]) == 1
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    for part in ("compilation", "ceilings", "kernels of a step"):
        assert report[part] is None
        assert "CUDA says no" in report[f"{part}: failed"]
    assert report["checks"]["failed"] == []
    assert report["steps of eager"]
    assert report["compute-sanitizer"] == "not installed"
    assert "steps of torch.compile" not in report
    assert "parts that did not finish: ['compilation: failed'," in capsys.readouterr().out.splitlines()[-1]


def test_times_are_matched_with_what_was_launched() -> None:
    case = gpu_cases.Problem(
        gpu_cases.add(4, 4, None, "max"), gpu_cases.get_backend("triton"), torch.float32, 2
    )
    with recording() as launches:
        case.both(torch.randn(2, 4, 4, 4))
    timed = [(launch.kernel.__name__, 10.0) for launch in launches]
    rows = gpu_timing.beside_rooflines([("another", 1.0), *timed], launches, H100)
    assert [row["launches"] for row in rows.values()] == [1, 2]
    assert rows["add_backward_kernel"]["microseconds"] == 20.0
    with pytest.raises(ValueError, match="2 kernels ran where 3 were recorded"):
        gpu_timing.beside_rooflines(timed[:2], launches, H100)


def test_correct_operations_pass() -> None:
    for case in (gpu_cases.separable(8, 4, 3, 2), gpu_cases.branches(4, 2)):
        assert gpu_cases.check(case, torch.float32, 1) <= gpu_cases.LIMITS[torch.float32]
    for case in (gpu_cases.factorized(8, 6, 4), gpu_cases.add(8, 4, "max", None)):
        # The interpreter truncates to bf16 where cards round.
        assert gpu_cases.check(case, torch.bfloat16, 2) <= 2 * gpu_cases.LIMITS[torch.bfloat16]


def test_a_wrong_result_and_one_that_changes_do_not_pass() -> None:
    case = gpu_cases.dense(8, 6, 4, (1, 1), (1, 1))
    factor = iter([1.0, 2.0, 1.0, 1.0])

    def run(backend: Any, x: list[torch.Tensor], w: list[torch.Tensor], norms: Any) -> Any:
        eager = x[0].dtype == torch.float64
        return backend.convolution(x[0], w[0] if eager else w[0] * next(factor), None)

    assert gpu_cases.check(case._replace(run=run, norms=()), torch.float32, 2) == float("inf")
    wrong = case._replace(run=lambda b, x, w, norms: case.run(b, x, [w[0] * (b.name == "eager")], norms))
    assert not gpu_cases.check(wrong, torch.float32, 1) <= gpu_cases.LIMITS[torch.float32]


def test_every_kind_of_operation_is_among_the_cases() -> None:
    names = {case.name.split()[0] for case in gpu_cases.cases()}
    assert names == {"separable", "dense", "factorized", "add", "two"}
    assert {case.name.split()[0] for case in gpu_cases.small_cases()} == names


@pytest.mark.skipif(HAS_CARD, reason="there is a card")
def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "needs a CUDA card" in capsys.readouterr().out


BARE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"threadpoolctl", "rich", "scipy", "safetensors", "matplotlib"}:
            raise ModuleNotFoundError(name)

sys.path.append(sys.argv[1])
sys.meta_path.insert(0, Missing())
sys.path.insert(0, "bench")
import torch
torch.cuda.is_available = lambda: False
import gpu
sys.exit(gpu.main([]))
"""


def test_a_bare_checkout_is_enough(tmp_path: Path) -> None:
    """No compiled module, nothing installed but torch, numpy and Triton."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("pnas_fast", "bench"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    command = [sys.executable, "-S", "-c", BARE, str(Path(torch.__file__).parent.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("bench/gpu.py needs a CUDA card"), done.stderr
    assert done.returncode == 2
