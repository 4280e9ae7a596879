"""The one command for a card, without one: it reaches its end whatever its parts do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import gpu_standins
import gpu_tools
import lease
import lease_predictions
from lease_parts import PARTS, Lease, Part
from lease_process import run_part, write_json
from lease_table import lines

COMMAND = [sys.executable, lease.__file__]
CHEAP = (
    "checks,ceilings,step,roofline of a step,replay by launch,batches,prototype,graphs on streams,processes,"
    "reasons to wait,two trees,compute-sanitizer,operations,torch.compile"
)
"""Parts that start no process which imports PyTorch again."""


def compiled() -> dict[str, str]:
    """The environment without Triton's interpreter: stand-ins need none, and launches are recorded."""
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def run(*options: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    done = subprocess.run([*COMMAND, *options], env=compiled(), capture_output=True, text=True, check=False)
    out = Path(options[options.index("--out") + 1]) / "lease.json"
    return done, json.loads(out.read_text(encoding="utf-8")) if out.exists() else None


@pytest.mark.slow
def test_other_parts_run_to_their_end_with_stand_ins(tmp_path: Path) -> None:
    others = [part.name for part in PARTS if part.name not in CHEAP.split(",")]
    options = ("--parts", ",".join([*others, "two trees"]), "--against", str(lease.ROOT))
    done, report = run("--dry-run", "--out", str(tmp_path), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: row["result"] for name, row in report["parts"].items()}
    assert set(found) == {*others, "two trees"}
    assert {row["status"] for row in report["parts"].values()} == {"done"}
    assert set(found["two trees"]) == {"this tree", "the other"}
    assert found["search"]["exit status"] == 0
    assert found["children side by side"]["1"]["images/s"] > 0


def test_cheap_parts_run_to_their_end_with_stand_ins(tmp_path: Path) -> None:
    done, report = run("--dry-run", "--out", str(tmp_path), "--parts", CHEAP)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: row["result"] for name, row in report["parts"].items()}
    assert list(found) == ["facts", *CHEAP.split(",")]
    assert {row["status"] for row in report["parts"].values()} == {"done"}
    assert len(found["checks"]["errors"]) == 4
    assert found["checks"]["failed"] == []
    replay = found["replay by launch"]
    assert len(replay["launches"]) == found["roofline of a step"]["launches"]
    assert sum(row["launches"] for row in replay["kernels"].values()) == len(replay["launches"])
    assert {"2", "4", "8", "16", "gain"} == set(found["batches"]["step"])
    assert set(found["prototype"]["µs"]) == {"3×3", "5×5", "7×7"}
    assert found["prototype"]["failed"] == []
    assert set(found["graphs on streams"]) == {"1, whole card", "2, whole card", "2, 1/2 of the card"}
    assert found["processes"]["without MPS"]["2"]["steps/s"] > 0
    assert found["processes"]["with MPS"] == "not installed: nvidia-cuda-mps-control"
    assert found["two trees"] == "no --against TREE was given"
    assert {path.name for path in tmp_path.iterdir()} == {"lease.json", "lease.txt"}
    table = (tmp_path / "lease.txt").read_text(encoding="utf-8")
    assert done.stdout.endswith(table)
    assert "STAND-INS" in table
    assert "wrong results: none known" in table
    step = next(row for row in report["predictions"] if row["name"] == "step in a graph, ms")
    assert (step["low"], step["high"], step["measured"]) == (7.8, 8.7, found["step"]["in a graph, ms"])


def given(folder: Path) -> Lease:
    return Lease({"parts": {}, "predictions": [], "stand-ins": True}, folder, None, None, lambda _: None)


def hang(lease: Lease) -> None:
    lease.keep({"so far": 1})
    # What a part started does not outlive it.
    process = subprocess.Popen(["sleep", "600"])
    (lease.folder / "started").write_text(str(process.pid), encoding="utf-8")
    time.sleep(600)


def crash(lease: Lease) -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def fail(lease: Lease) -> None:
    lease.keep([1, float("nan"), float("inf")])
    raise RuntimeError("CUDA says no")


def test_a_part_that_hangs_dies_or_fails_loses_only_itself(tmp_path: Path) -> None:
    lease = given(tmp_path)
    run_part(Part("hang", 1, hang), lease, 1)
    run_part(Part("crash", 60, crash), lease, 60)
    run_part(Part("fail", 60, fail), lease, 60)
    run_part(Part("good", 60, lambda lease: sorted(lease.report["parts"])), lease, 60)
    rows = lease.report["parts"]
    assert rows["hang"]["status"] == "ended after 1 s"
    assert rows["hang"]["result"] == {"so far": 1}
    assert _state(int((tmp_path / "started").read_text(encoding="utf-8"))) in ("", "Z")
    assert rows["crash"]["status"] == "died, exit status -9"
    assert rows["crash"]["log"] == "last words\n"
    assert rows["fail"]["status"] == "failed"
    assert rows["fail"]["result"] == [1, "nan", "inf"]
    assert rows["fail"]["why"].endswith("RuntimeError: CUDA says no\n")
    assert rows["good"] == {
        "status": "done",
        "seconds": rows["good"]["seconds"],
        "result": ["crash", "fail", "hang"],
    }
    table = "\n".join(lines(lease.report))
    for line in ("hang: ended after 1 s", "crash: died, exit status -9", "RuntimeError: CUDA says no"):
        assert line in table


def _state(process: int) -> str:
    """Of a process, a letter; empty where there is none."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return ""
        if state == "Z":
            break
        time.sleep(0.05)
    return state


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_prints_what_there_is(number: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(lease.__file__).parent)!r})
import lease
lease.import_from(lease.ROOT)
import lease_parts
facts = lambda _: {{"card": "A card", "torch": "1", "triton": "2", "python": "3"}}
def hang(lease):
    lease.keep({{"so far": 17}})
    open({str(tmp_path / "begun")!r}, "w").close()
    time.sleep(600)
lease_parts.PARTS = (
    lease_parts.Part("facts", 9, facts), lease_parts.Part("hang", 500, hang), lease_parts.Part("b", 9, facts)
)
sys.exit(lease.main(["--out", {str(tmp_path)!r}]))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    report = json.loads((tmp_path / "lease.json").read_text(encoding="utf-8"))
    assert report["stopped"] == number.name
    assert report["parts"]["hang"]["status"] == "stopped"
    assert report["parts"]["hang"]["result"] == {"so far": 17}
    assert "b" not in report["parts"]
    assert f"stopped by {number.name}" in output
    assert "so far" in output


def test_without_time_parts_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu_standins, "install", lambda: None)
    assert lease.main(["--dry-run", "--limit", "1", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "lease.json").read_text(encoding="utf-8"))
    assert {row["status"] for row in report["parts"].values()} == {"left out: no time is left"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--out DIR is missing"),
        (f"--out {__file__}", f"--out {__file__}: File exists"),
        (f"--out {__file__}/o", f"--out {__file__}/o: Not a directory"),
        ("--out o --limit 0", "argument --limit: '0', allowed is a whole number from 1 to 3600"),
        ("--out o --limit ten", "argument --limit: 'ten', allowed is"),
        ("--out o --against /nowhere", "--against /nowhere: no checkout, which has a folder pnas_fast"),
        ("--out o --kernels /nowhere", "--kernels /nowhere: no such file"),
        ("--out o --parts checks,none", "--parts 'none': no such part, allowed are facts, kernels, checks,"),
    ],
)
def test_bad_input_is_told(
    words: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        lease.main(words.split())
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_predictions_stand_beside_what_was_measured() -> None:
    assert {row["verdict"] for row in lease_predictions.table()} == {"not measured"}
    step = {"in a graph, ms": 8.5}
    replay = {"kernels": {"add_kernel": {"microseconds": 500.0}, "dense_kernel": {"microseconds": 1.0}}}
    parts = {"step": {"result": step}, "replay by launch": {"result": replay}, "batches": {"result": None}}
    verdicts = {row["name"]: row["verdict"] for row in lease_predictions.compare({"parts": parts})}
    assert verdicts["step in a graph, ms"] == "as predicted"
    assert verdicts["add, µs a step"] == "above"
    assert verdicts["dense, µs a step"] == "below"
    assert verdicts["packing: 8 t(128) / t(1024)"] == "not measured"


def test_every_prediction_is_of_a_part_that_there_is() -> None:
    names = {part.name for part in PARTS}
    for prediction in lease_predictions.PREDICTIONS:
        assert prediction.path[0] in names
        assert prediction.low < prediction.high


def test_wrong_results_come_first_and_fail(tmp_path: Path) -> None:
    import lease_parts

    row = {"status": "done", "result": {"failed": ["add 4@6 float32"], "errors": {"add 4@6 float32": "inf"}}}
    report = {"stand-ins": False, "predictions": [], "parts": {"checks": row}}
    assert lease_parts.has_failed(report)
    assert lines(report)[1] == "WRONG RESULTS: add 4@6 float32"
    wrong = {"failed": ["prototype 3×3 into"], "errors": {"3×3": {"into": "nan"}}}
    prototype = {"status": "done", "result": wrong}
    assert lines(report | {"parts": {"prototype": prototype}})[1] == "WRONG RESULTS: prototype 3×3 into"
    assert lease_parts.has_failed(report | {"parts": {"prototype": prototype}})
    write_json(tmp_path / "a.json", report)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == report


def test_what_warps_wait_for_is_read_from_the_profilers_table() -> None:
    text = """==PROF== Connected
"ID","Kernel Name","Grid Size","Section Name","Metric Name","Metric Unit","Metric Value"
"0","add_kernel","(8, 1, 1)","Occupancy","Achieved Occupancy","%","12.5"
"0","add_kernel","(8, 1, 1)","Occupancy","Block Limit SM","block","32"
"1","add_kernel","(9, 1, 1)","Occupancy","Achieved Occupancy","%","25.0"
==PROF== Disconnected
"""
    assert gpu_tools.read_csv(text) == [
        {"kernel": "add_kernel", "grid": "(8, 1, 1)", "Achieved Occupancy, %": "12.5"},
        {"kernel": "add_kernel", "grid": "(9, 1, 1)", "Achieved Occupancy, %": "25.0"},
    ]


@pytest.mark.slow
def test_kernels_of_parts_are_listed_for_a_card_elsewhere() -> None:
    """In a process of its own: Triton's interpreter serves the tests."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(lease.__file__).parent)!r})
import lease
lease.import_from(lease.ROOT)
import gpu_cases, gpu_parts
gpu_cases.DEVICE = "cpu"
cases = [gpu_cases.separable(24, 8, 3, 1), gpu_cases.add(24, 8, "max", None)]
variants = gpu_parts.distinct(gpu_parts.cases_variants(cases, 90))
names = sorted({{(variant.kernel.__name__, variant.name().split()[1]) for variant in variants}})
print(*(" ".join(name) for name in names), sep=chr(10))
assert len(variants) == len({{variant.key() for variant in variants}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=compiled(), capture_output=True, text=True, check=False
    )
    kernels = ("add_backward_kernel", "add_kernel", "separable_backward_kernel", "separable_kernel")
    expected = {f"{name} {dtype}" for name in kernels for dtype in ("bf16", "fp32")}
    assert expected <= set(done.stdout.splitlines()), done.stdout + done.stderr
