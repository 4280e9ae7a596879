"""What is measured on a card, on the CPU: what a card sees rarely must not fail for a slip."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gpu_cases
import gpu_children
import gpu_parts
import gpu_timing
import gpu_tools
import machine_code
from pnas_fast.data import DataSet
from pnas_fast.data import load as load_data
from pnas_fast.kernel_tools.cost import H100
from pnas_fast.kernels import get_backend
from pnas_fast.kernels.triton.launch import recording

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")


ALONE: dict[str, Any] = {
    "first step, s": 1.5,
    "images/s": 7_500.0,
    "reserved, GiB": 0.5,
    "equal epochs": {"data": "digits", "epochs": 5, "accuracy": 0.975, "images": 360, "losses": [0.1]},
}
TOGETHER: dict[str, Any] = {
    "children": 2,
    "start, s": 20.0,
    "2": {"images/s": 15_000.0, "reserved, GiB": 1.0},
    "memory of the card, GiB": 2.0,
    "1": {"images/s": None, "reserved, GiB": 0.5},
}


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (0, "", "clean"),
        (9, "Invalid write\n== ERROR SUMMARY: 2 errors", "found 2 errors: Invalid write"),
        (9, "killed", "found some errors: killed"),
        (1, "failed checks: ['a']\n== ERROR SUMMARY: 0 errors", "no errors found, but the program under it"),
        (
            1,
            "no driver",
            "did not finish, but the program under it failed by itself, exit status 1: no driver",
        ),
    ],
)
def test_whose_failure_the_sanitizer_reports(
    status: int, words: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/tools/{name}")
    done = subprocess.CompletedProcess("", status, words, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert gpu_tools.sanitize().startswith(said)


def test_children_count_while_all_are_at_work() -> None:
    """From 2 s, when the second has an epoch behind it, to 4 s, when the first is done."""
    times = [[(1.0, 100), (2.0, 200), (4.0, 600)], [(2.0, 50), (3.0, 100), (5.0, 300)]]
    assert gpu_children.overlapping_rate(times) == (400 + 150) / 2
    assert gpu_children.overlapping_rate(times[:1]) == 500 / 3
    assert gpu_children.overlapping_rate([times[0], [(4.0, 1), (5.0, 2)]]) is None


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings of small children, by backend."""
    monkeypatch.setattr(gpu_children, "IMAGES", 8)
    monkeypatch.setattr(gpu_children, "EPOCHS", 3)
    monkeypatch.setattr(gpu_children, "JUDGED_EPOCHS", 1)
    monkeypatch.setattr(gpu_children, "used_memory", lambda: 0)
    return lambda backend: gpu_children.settings_for(backend, 1, 2, 4, 4)


@pytest.mark.slow
@pytest.mark.interpreter
def test_a_child_of_either_backend_is_trained_as_a_search_trains_it(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(spec: str, *, device: str) -> DataSet:
        """Few images, for the interpreter's sake."""
        data = load_data(spec, device=device).subset(8)
        return replace(
            data,
            validation_images=data.validation_images[:2],
            validation_labels=data.validation_labels[:2],
        )

    # The interpreter runs on the CPU what a child asks of a card.
    monkeypatch.setattr("pnas_fast.evaluation.child.resolve_backend", lambda name, device: name)
    monkeypatch.setattr(gpu_children, "load", load)
    monkeypatch.setattr(gpu_children, "EPOCHS", 2)
    for backend in gpu_children.BACKENDS:
        row = json.loads(
            json.dumps(gpu_children.one_child("0:identity+1:max_pool3x3", small(backend), "cpu"))
        )
        assert row["images/s"] > 0
        assert row["first step, s"] > 0
        assert len(row["losses"]) == 2
        assert row["equal epochs"]["data"] == "digits"
        assert 0 <= row["equal epochs"]["accuracy"] <= 1


@pytest.mark.slow
def test_children_side_by_side_in_a_process_of_the_search(small: Any) -> None:
    command = [*gpu_parts.INSIDE, "worker"]
    cell = "0:identity+1:max_pool3x3"
    found = gpu_children.side_by_side(cell, small("eager"), [1, 2], "cpu", command)
    assert found["children"] == 2
    assert found["start, s"] > 0
    assert found["1"]["images/s"] > 0
    assert set(found["2"]) == {"images/s", "reserved, GiB"}
    with pytest.raises(RuntimeError, match=r"workers do not start(.|\n)*no such thing"):
        gpu_children.side_by_side(
            cell, small("eager"), [1], "cpu", [sys.executable, "-c", "raise SystemExit('no such thing')"]
        )
    with pytest.raises(RuntimeError, match=r"a child failed: exceeded the time limit"):
        gpu_children.side_by_side(cell, replace(small("eager"), time_limit=0.001), [1], "cpu", command)


def test_what_is_said_of_children() -> None:
    report = {"roofline of a step": {"images/s": 30_000.0}, "child of triton": ALONE, "child of eager": None}
    lines = gpu_children.lines(report | {"children side by side": TOGETHER})
    assert [" ".join(line.split()) for line in lines] == [
        "triton: a child alone 7,500 images/s, 25.0% of roofline, 10.0% of 75,000, 0.50 GiB reserved, "
        "first step 1.5 s",
        "accuracy 0.9750 after 5 epochs of digits, of 360 images",
        "triton: 1 side by side at no time all at once, 0.50 GiB reserved",
        "triton: 2 side by side 15,000 images/s, 50.0% of roofline, 20.0% of 75,000, 1.00 GiB reserved",
        "2 children in a process: 20 s until all had an epoch behind them, 2.0 GiB of the card",
    ]
    assert gpu_children.lines({}) == []


def test_times_are_matched_with_what_was_launched() -> None:
    case = gpu_cases.Problem(gpu_cases.add(4, 4, None, "max"), get_backend("triton"), torch.float32, 2)
    with recording() as launches:
        for _ in range(2):
            case.both(torch.randn(2, 4, 4, 4))
    timed = [(launch.kernel.__name__, 10.0) for launch in launches]
    launched = gpu_timing.beside_rooflines([("another", 1.0), *timed], launches, H100)
    assert [row["kernel"] for row in launched] == [name for name, _ in timed]
    rows = gpu_timing.by_kernel(launched)
    assert [row["launches"] for row in rows.values()] == [2, 2]
    assert rows["add_backward_kernel"]["microseconds"] == 20.0
    with pytest.raises(ValueError, match="2 kernels ran where 4 were recorded"):
        gpu_timing.beside_rooflines(timed[:2], launches, H100)


@pytest.mark.slow
@pytest.mark.interpreter
def test_correct_operations_pass() -> None:
    for case in (gpu_cases.separable(8, 4, 3, 2), gpu_cases.branches(4, 2)):
        assert gpu_cases.check(case, torch.float32, 1) <= gpu_cases.LIMITS[torch.float32]
    for case in (gpu_cases.factorized(8, 6, 4), gpu_cases.add(8, 4, "max", None)):
        # The interpreter truncates to bf16 where cards round.
        assert gpu_cases.check(case, torch.bfloat16, 2) <= 2 * gpu_cases.LIMITS[torch.bfloat16]


@pytest.mark.interpreter
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


BARE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"threadpoolctl", "rich", "safetensors", "matplotlib"}:
            raise ModuleNotFoundError(name)

sys.path.append(sys.argv[1])
sys.meta_path.insert(0, Missing())
sys.path.insert(0, "bench")
import torch
torch.cuda.is_available = lambda: False
import lease
status = lease.main(["--out", "out", "--parts", "checks,search"])
import pnas_fast.executors.worker
sys.exit(status)
"""


def test_a_bare_checkout_is_enough(tmp_path: Path) -> None:
    """No compiled module, nothing installed but torch, numpy and Triton."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("pnas_fast", "bench"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    command = [sys.executable, "-S", "-c", BARE, str(Path(torch.__file__).parent.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no CUDA card here: stand-ins on the CPU" in done.stdout
    report = json.loads((tmp_path / "out/lease.json").read_text(encoding="utf-8"))
    assert report["parts"]["checks"]["result"]["failed"] == []
    assert report["parts"]["search"]["result"].startswith("compiled modules are missing: python setup.py")


def test_loops_are_read_from_machine_code() -> None:
    """An outer loop with an inner one, a jump ahead, and the jump to itself behind which code ends."""
    body = ["FFMA R1, R2, R3, R4"] * 64
    inner = ["LDG.E R5, [R2]", *body, "@P0 BRA 0x20"]
    code = ["MOV R1, R2", "@!P1 BRA 0x7f0", *inner, *body[:10], "@P1 BRA 0x10", "EXIT", "BRA 0xb00"]
    text = "\n".join(
        f"        /*{16 * place:04x}*/    {words} ;  /* 0x00 */" for place, words in enumerate(code)
    )
    outer, own = machine_code.describe(machine_code.read(text))
    assert outer.split() == ["10", "4e0", "78", "12", "FFMA", "10", "BRA", "2"]
    assert own.split() == ["20", "430", "66", "66", "FFMA", "64", "LDG", "1", "BRA", "1"]
