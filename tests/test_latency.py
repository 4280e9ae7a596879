"""Latencies of networks: what is timed, the table, the device's file, the command."""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from pnas_fast.latency import measuring, networks, time_networks
from pnas_fast.latency.__main__ import main
from pnas_fast.latency.fit import fit_table, non_negative_least_squares, row_of
from pnas_fast.latency.measuring import Way, measure_cells, time_cells
from pnas_fast.latency.networks import Chosen, choose_cells
from pnas_fast.latency.table import device_file
from pnas_fast.latency.time_networks import MANIFEST, SCRIPT, TIMES, time_in_turns
from pnas_fast.objectives.additive import AdditiveCost
from pnas_fast.objectives.device import Device, DeviceError, Timed, Times, layout_of, read_device
from pnas_fast.space import OPERATIONS, Cell

PAGE = Path(__file__).parents[1] / "docs" / "latency.md"
LAYOUT = "repeats=1,filters=2,image=4"
DEVICE = Device(
    name="made up", system="none", cores=1, load=None, runtime="onnxruntime", provider="CPU", threads=1,
    clock="wall", versions={},
)  # fmt: skip
TABLE = np.random.default_rng(1).uniform(0.1, 2, (3, 8))
COST = AdditiveCost("latency_ms", "ms", TABLE, np.array([1.0, 1.5, 2.0, 3.0, 3.0]))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few networks as a table can be fitted to."""
    monkeypatch.setattr(networks, "FITTED", 30)
    monkeypatch.setattr(networks, "HELD_OUT", 5)


@cache
def all_chosen() -> list[Chosen]:
    return choose_cells()


def made_up(noise: float, seed: int = 0) -> Times:
    """Times of an additive device with so much relative noise."""
    rng = np.random.default_rng(seed)
    timed = []
    for cell, held_out in all_chosen():
        ms = COST.before(cell.codes[np.newaxis])[0] * np.exp(noise * rng.standard_normal())
        timed.append(Timed(str(cell), held_out, (float(2 * ms), float(ms))))
    return Times("repeats=6,filters=44,image=32,batch=1", DEVICE, tuple(timed))


# Which networks.


def test_every_operation_is_seen_often_on_every_kind_of_input() -> None:
    chosen = choose_cells()
    assert chosen == all_chosen()
    assert len({cell.canonical() for cell, _ in chosen}) == 80
    fitted = [cell for cell, held_out in chosen if not held_out]
    assert Counter(map(len, fitted)) == dict.fromkeys(range(1, 6), 12)
    seen = Counter(
        (min(source, 2), operation)
        for cell in fitted for block in cell.blocks for source, operation in block.sides
    )  # fmt: skip
    assert len(seen) == 24
    assert min(seen.values()) >= 8
    assert Counter(len(cell) for cell, held_out in chosen if held_out)[5] == 12


# The table.


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 12), st.booleans())
@settings(deadline=None)
def test_the_least_squares_are_scipys(seed: int, columns: int, rows: int, twice: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rows, columns)), rng.standard_normal(rows)
    if twice:  # columns that nothing tells apart
        a = np.hstack([a, a])
    mine = non_negative_least_squares(a, b)
    assert mine.min() >= 0
    assert np.linalg.norm(a @ mine - b) == pytest.approx(nnls(a, b)[1], abs=1e-7)


def test_a_cells_row_is_what_its_cost_adds_up() -> None:
    numbers = np.concatenate([COST.table.ravel(), np.diff(COST.const, prepend=0)])
    for cell, _ in all_chosen():
        assert row_of(cell) @ numbers == pytest.approx(COST.before(cell.codes[np.newaxis])[0])


def test_an_additive_device_is_found() -> None:
    found = device_file(made_up(0))
    assert found.judged.networks == 20
    assert found.judged.rank_correlation == pytest.approx(1)
    assert found.judged.largest_error < 1e-9
    for cell, _ in all_chosen():
        assert found.latency(cell) == pytest.approx(COST.before(cell.codes[np.newaxis])[0])


def test_noise_costs_little() -> None:
    judged = device_file(made_up(0.05)).judged
    assert judged.rank_correlation is not None
    assert judged.rank_correlation > 0.9
    assert judged.median_error < 0.1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_cell_never_costs_less_than_what_it_was_grown_from(seed: int) -> None:
    cells = [cell for cell, _ in all_chosen()]
    ms = np.random.default_rng(seed).uniform(0.1, 10, len(cells))
    table, constants = fit_table(cells, ms)
    assert AdditiveCost("latency_ms", "ms", table, constants).grows


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda cell, held_out: held_out, "times of 0 networks and 20 held out, needed are 29 and 3 or more"),
        (lambda cell, held_out: not held_out, "times of 60 networks and 0 held out"),
        (lambda cell, held_out: len(cell) != 4, "times of no network of 4 blocks, needed are all of 1 to 5"),
    ],
)
def test_too_few_networks_are_refused(keep: Callable[[Cell, bool], bool], message: str) -> None:
    times = made_up(0)
    kept = tuple(timed for timed in times.networks if keep(Cell.parse(timed.cell), timed.held_out))
    with pytest.raises(DeviceError, match=message):
        device_file(msgspec.structs.replace(times, networks=kept))


# Timing.


def test_networks_take_turns_and_the_fastest_of_three_runs_counts() -> None:
    now, ran = 0.0, list[int]()

    def network(index: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            ran.append(index)
            # Of each turn's four runs the first is slow, the third is the fastest.
            now += (index + 1) * (9, 3, 1, 2)[ran.count(index) % 4 - 1]

        return run

    turns = list[tuple[int, int]]()
    times = time_in_turns(network, 2, 3, lambda *done: turns.append(done), lambda: now)
    assert times == [[1000.0] * 3, [2000.0] * 3]
    assert ran == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    assert turns == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("most_open", [10**9, 0])
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_cells_are_timed_here_and_looked_up(
    runtime: str, most_open: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_networks, "MOST_OPEN", most_open)
    cells = [Cell.parse("0:sep3x3+1:identity"), Cell.parse("1:max_pool3x3+1:dil_conv3x3")]
    chosen = [Chosen(cell, held_out=False) for cell in cells]
    times = time_cells(chosen, layout_of(LAYOUT), Way(runtime, "cpu", threads=1, rounds=2))
    assert (times.device.runtime, times.device.threads) == (runtime, 1)
    assert [timed.cell for timed in times.networks] == list(map(str, cells))
    assert all(len(timed.ms) == 2 and timed.fastest > 0 for timed in times.networks)
    again = msgspec.structs.replace(device_file(made_up(0)), device=times.device, deployment=LAYOUT)
    assert all(ms > 0 for ms in measure_cells(cells, again, rounds=1))


def test_cells_are_not_measured_on_another_machine() -> None:
    found = device_file(made_up(0))
    assert not measuring.is_here(found)
    with pytest.raises(DeviceError, match="times of made up cannot be measured here"):
        measure_cells([Cell.parse("0:sep3x3+1:identity")], found)


# The device's file.


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / TIMES).write_bytes(msgspec.json.encode(made_up(0.02)))
    assert main(["fit", str(tmp_path / TIMES), "--out", str(tmp_path / "device.json")]) == 0
    return tmp_path / "device.json"


def test_the_file_is_read_for_its_layout_alone(device: Path) -> None:
    found = read_device(device, layout_of("image=32,filters=44,repeats=6"))
    assert found == device_file(made_up(0.02))
    assert found.digest == read_device(device).digest
    cost = found.cost()
    assert (cost.name, cost.unit, cost.maximise) == ("latency_ms", "ms", False)
    cell = Cell.parse("0:sep3x3+1:identity,2:sep3x3+0:sep7x7")
    wanted = found.constants[1] + sum(
        found.table[("H[c-2]", "H[c-1]", "block")[min(source, 2)]][operation]
        for block in cell.blocks for source, operation in block.sides
    )  # fmt: skip
    assert found.latency(cell) == pytest.approx(wanted)
    with pytest.raises(DeviceError, match=r"wanted are repeats=6,filters=44,image=48,batch=1$"):
        read_device(device, layout_of("repeats=6,filters=44,image=48"))


def test_what_predictions_follow_from_is_in_the_digest() -> None:
    found = device_file(made_up(0.02))
    again = msgspec.structs.replace(found, networks=())
    assert again.digest == found.digest
    for name, value in {
        "constants": (*found.constants[:4], found.constants[4] + 1),
        "deployment": LAYOUT,
        "table": {**found.table, "block": dict.fromkeys(OPERATIONS, 1.0)},
    }.items():
        assert msgspec.structs.replace(found, **{name: value}).digest != found.digest


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.pop(key)


@pytest.mark.parametrize(
    "spoil",
    [
        without("table"), without("judged"), without("constants"),
        lambda values: values.update(format=2),
        lambda values: values.update(deployment="repeats=6"),
        lambda values: values.update(more=1),
        lambda values: values["table"]["block"].pop("identity"),
        lambda values: values["table"]["block"].update(identity=-1.0),
        lambda values: values["table"]["block"].update(identity=1e300),
        lambda values: values["table"].update(other={}),
        lambda values: values.update(constants=[5, 4, 3, 2, 1]),
        lambda values: values.update(constants=[1, 2, 3]),
        lambda values: values["networks"][0].update(ms=[]),
        lambda values: values["networks"][0].update(ms=[0]),
    ],
)  # fmt: skip
def test_another_file_is_refused_in_one_line(device: Path, spoil: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(device.read_bytes())
    spoil(values)
    device.write_text(json.dumps(values))
    with pytest.raises(DeviceError) as raised:
        read_device(device)
    assert "\n" not in str(raised.value)
    assert str(device) in str(raised.value)


# The command.


def test_a_table_that_predicts_badly_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / TIMES).write_bytes(msgspec.json.encode(made_up(1.5)))
    out = tmp_path / "device.json"
    line = ["fit", str(tmp_path / TIMES), "--out", str(out)]
    assert main(line) == 2
    found = capsys.readouterr()
    assert "rank correlation" in found.out
    assert re.fullmatch(
        r"python -m pnas_fast.latency: error: the table's median error .* is \d+%, allowed is 25%.*\n",
        found.err,
    )
    assert not out.exists()
    assert main([*line, "--force"]) == 0
    assert read_device(out).judged.median_error > 0.25


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("measure --deploy repeats=6 --out {0}/a", "deploy is 'repeats=6': lacks filters, image"),
        ("measure --deploy repeats=0,filters=4,image=8 --out {0}/a", "repeats is 0"),
        ("measure --deploy depth=3,repeats=1,filters=4,image=8 --out {0}/a", "found 'depth=3'"),
        ("measure --deploy repeats=1,filters=4,image=8 --out {0}/b/a", "{0}/b is not a folder that can"),
        ("measure --deploy repeats=1,filters=4,image=8 --out {0}", "is no file"),
        ("measure --deploy repeats=1,filters=4,image=8 --rounds 0 --out {0}/a", "'0', allowed is a whole"),
        ("measure --deploy repeats=1,filters=4,image=8 --runtime tvm --out {0}/a", "invalid choice: 'tvm'"),
        ("measure --device cuda --deploy repeats=1,filters=2,image=4 --out {0}/a", "cuda"),
        ("measure --device cuda --runtime torch --deploy repeats=1,filters=2,image=4 --out {0}/a", "cuda"),
        ("measure --deploy repeats=9,filters=4096,image=8 --out {0}/a", "the network is too large"),
        (
            "measure --runtime torch --deploy repeats=1,filters=4,image=4096,batch=65536 --out {0}/a",
            "batch of 65,536 images of 4096×4096, allowed",
        ),
        ("pack --deploy repeats=9,filters=4096,image=8 --out {0}/a", "the network is too large"),
        ("pack --deploy repeats=1,filters=4,image=8 --out {0}", "is there already"),
        ("fit {0}/times.json --out {0}/a", "{0}/times.json: not the times .*No such file"),
        ("fit {0} --out {0}/a", "it is a folder"),
    ],
)
@pytest.mark.usefixtures("few")
def test_refusals_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    try:
        status = main(line.format(tmp_path).split(" "))
    except SystemExit as end:
        status = int(end.code or 0)
    found = capsys.readouterr().err
    assert status == 2
    assert found.count("\n") == 1
    assert re.search(message.format(tmp_path), found), found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands as they are written, but for a tiny layout; the script knows neither us nor PyTorch."""
    text = PAGE.read_text(encoding="utf-8").replace("repeats=6,filters=44,image=32", LAYOUT)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:3] == ["python", "-m", "pnas_fast.latency"]:
            more = {"measure": "--force --rounds 1", "pack": "", "fit": "--force"}[words[3]].split()
            assert main([*words[3:], *more]) == 0, capsys.readouterr()
        else:
            assert words == ["python", f"phone/{SCRIPT}"]
            alone = (
                "import runpy, sys; sys.argv = [sys.argv[1], '--rounds', '1']\n"
                "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
                "finally: assert not {'torch', 'pnas_fast', 'onnx', 'msgspec'} & set(sys.modules)\n"
            )
            done = subprocess.run(
                [sys.executable, "-P", "-c", alone, words[1]], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    here, phone = read_device(Path("here.json")), read_device(Path("phone.json"))
    assert [timed.cell for timed in here.networks] == [timed.cell for timed in phone.networks]
    assert here.device.name == phone.device.name
    programs = re.findall(r"```python\n(.*?)```", text, re.S)
    assert programs
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), {})


def test_the_script_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / SCRIPT).write_text(Path(time_networks.__file__).read_text(encoding="utf-8"))
    for manifest, message in (
        (None, "not the manifest"),
        ("[]", "not the manifest"),
        ('{"networks": [{}]}', "not the manifest"),
        (
            '{"deployment": "x", "networks": [{"file": "a.onnx", "cell": "", "held_out": true}]}',
            "a.onnx: no such",
        ),
    ):
        if manifest is not None:
            (tmp_path / MANIFEST).write_text(manifest)
        with pytest.raises(time_networks.TimingError, match=message) as raised:
            time_networks.time_folder(tmp_path, time_networks.CPU, 1, 1, "", lambda *_: None)
        assert "\n" not in str(raised.value)
