"""Children in a Ray cluster: the same trials as here, whatever dies meanwhile."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from faulty import SPEC, Source
from made_up import driven
from pnas_fast.cli.ending import GO_ON
from pnas_fast.cli.options import ConfigError
from pnas_fast.executors import ray_cluster
from pnas_fast.executors.host_folder import HostFolder
from pnas_fast.executors.ray_cluster import Demand, Wish, connected
from pnas_fast.protocols import (
    Drained,
    ExecutorEvent,
    Finished,
    MachineError,
    Measurement,
    Progressed,
    Proposal,
    Spec,
    Task,
    Trial,
)
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.cli import parse
from pnas_fast.search.command import main as search
from pnas_fast.space import Cell
from ray_children import HOLD, SETTINGS, STORE, begun, executor, logging_spec, random_of, said
from ray_clusters import add_node, cluster

ROOT = Path(__file__).parents[1]
CELL = Cell.parse("0:sep3x3+1:max_pool3x3")

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="pnas_fast[ray] is not installed")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one slot each."""
    with cluster(2) as made:
        yield made


@pytest.fixture
def joined(nodes: Any) -> Iterator[Any]:
    """The same, this process being a driver of them."""
    with connected(nodes.address):
        yield nodes


def task(number: int, what: str = "works", **more: Any) -> Task:
    return Task(number, Proposal(CELL, 2, note={"do": what}), number, **more)


def run(made: Any, tasks: Sequence[Task]) -> tuple[dict[int, Measurement], list[ExecutorEvent]]:
    events = list[ExecutorEvent]()
    for one in tasks:
        made.submit(one)
    while happened := list(made.events()):
        events += happened
    return {event.task.number: event.measurement for event in events if isinstance(event, Finished)}, events


def without_device(trial: Trial) -> Trial:
    return replace(trial, measurement=replace(trial.measurement, device=None))


# Whatever dies.


KILLS = 5


class Cut:
    """A search in a process of its own, on a cluster of so many nodes, and what is killed under it."""

    def __init__(self, nodes: Any, count: int, folder: Path, children: int) -> None:
        self.nodes, self.count, self.folder, self.committed = nodes, count, folder, set[int]()
        program, held = ROOT / "tests" / "ray_children.py", [str(folder), str(children)]
        self.command = [sys.executable, str(program), nodes.address, *held]
        self.hold, self.restarted, self.logged = folder / HOLD, 0, 0
        self.hold.touch()
        self.driver = subprocess.Popen(self.command, cwd=ROOT)

    def until(self, happened: Callable[[], Any]) -> Any:
        while not (found := happened()):
            assert self.driver.poll() is None
            time.sleep(0.02)
        return found

    def spread(self, *named: str) -> None:
        """Let children go on once as many nodes as there are have had one, and those that are named."""
        self.until(
            lambda: (
                len(used := {node for _, node, _ in begun(self.folder)}) >= self.count
                and used.issuperset(named)
            )
        )
        self.hold.unlink()

    def kill(self, what: str, node: str, process: int) -> None:
        if what == "actor":
            os.kill(process, signal.SIGKILL)
        elif what == "node":
            self.hold.touch()
            gone = next(one for one in self.nodes.worker_nodes if one.node_id == node)
            self.nodes.remove_node(gone, allow_graceful=False)
            self.spread(add_node(self.nodes).node_id)
        else:
            self.driver.kill()
            self.driver.wait()
            with TrialStore(self.folder / STORE) as store:
                self.committed = {trial.number for trial in store.trials()}
            self.restarted, self.logged = len(said(self.folder)), len(begun(self.folder))
            self.driver = subprocess.Popen(self.command, cwd=ROOT)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_whatever_is_killed_costs_the_child_in_flight_alone(nodes: Any, count: int, tmp_path: Path) -> None:
    """Five kills of actors and nodes and one of the driver, each of which has a child in flight."""
    choice, children = random.Random(f"{count} nodes"), 10 * count
    while len(nodes.worker_nodes) < count:
        add_node(nodes)
    kills = ["driver", "node", "actor", *choice.choices(["node", "actor"], k=KILLS - 2)]
    choice.shuffle(kills)
    # Children after them are left for nodes that join.
    held = set(choice.sample(range(children - 2 * count), len(kills)))
    for number in held:
        (tmp_path / f"{HOLD}-{number}").touch()
    search, killed = Cut(nodes, count, tmp_path, children), dict[int, str]()
    try:
        search.spread()
        for what in kills:
            # Not one of a driver that is gone, whose actor nobody would miss.
            number, node, process = search.until(
                lambda: next(
                    (entry for entry in begun(tmp_path)[search.logged :] if entry[0] in held - killed.keys()),
                    None,
                )
            )
            search.kill(what, node, process)
            killed[number] = what
            (tmp_path / f"{HOLD}-{number}").unlink()
        assert search.driver.wait() == 0
    finally:
        search.driver.kill()
        search.driver.wait()
    with TrialStore(tmp_path / STORE) as store:
        trials = [without_device(trial) for trial in store.trials()]
    assert trials == driven(tmp_path / "expected", strategy=random_of(children))
    assert {path.name for path in (tmp_path / "left").iterdir()} == set(map(str, range(children)))
    finished = set[int]()
    for at, (what, of) in enumerate(said(tmp_path)):
        if at == search.restarted:
            finished |= search.committed
        if what == "finished":
            finished.add(of)
        assert (what, of) not in {("started", number) for number in finished}
    again = Counter(number for number, *_ in begun(tmp_path))
    assert all(again[number] > 1 for number in held)
    lines = " ".join(of for what, of in said(tmp_path) if what == "line")
    later = list(killed)[kills.index("driver") + 1 :]
    assert all(f"child {number} is trained again" in lines for number in later)


RECIPE = "--strategy random --budget 4 --blocks 1 --epochs 1 --train-images 64 --filters 4 --device cpu"
SEARCH = [*RECIPE.split(), "--finalists", "0"]


def on(nodes: Any) -> list[str]:
    return ["--executor", "ray", "--ray-address", nodes.address, "--max-children", "1"]


@needs_ray
@pytest.mark.slow
def test_a_search_leaves_the_trials_and_weights_of_a_local_one(
    nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert search([*SEARCH, "--out", str(here), "--workers", "1"]) == 0
    capsys.readouterr()
    assert search([*SEARCH, "--out", str(there), *on(nodes)]) == 0
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "".join(capsys.readouterr())) == []
    mine, theirs = (RunRecord.load(folder).trials for folder in (here, there))
    assert [(trial.cell, trial.accuracy, trial.value("loss")) for trial in mine] == [
        (trial.cell, trial.accuracy, trial.value("loss")) for trial in theirs
    ]
    digests = {
        hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest() for folder in (here, there)
    }
    assert len(digests) == 1


@needs_ray
@pytest.mark.slow
def test_a_search_that_is_asked_to_end_says_how_to_go_on(
    nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "driver").write_text(str(os.getpid()))
    arguments = [*SEARCH, "--out", "run", "--evaluator", "user_functions:asks_once", *on(nodes)]
    assert search([*arguments, "--grace", "0"]) == GO_ON
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith(f"Continue with: python -m pnas_fast.search --out run {' '.join(on(nodes))}")
    assert search(arguments) == 0
    assert len(RunRecord.load(tmp_path / "run").trials) == 4


# What children do.


@needs_ray
@pytest.mark.slow
def test_children_fail_run_out_of_memory_hang_and_crash_as_they_do_here(joined: Any, tmp_path: Path) -> None:
    settings = replace(SETTINGS, time_limit=1.0)
    with executor(tmp_path, settings, losses=1, grace=1.0, most=1) as made:
        made.start(SPEC, Source())
        tasks = [task(0), task(1, "raises"), task(2, "is big"), task(3, "hangs"), task(4, exclusive=True)]
        found, events = run(made, tasks)
        assert isinstance(events[-1], Drained)
        assert found[0].values == {"accuracy": 0.0}
        assert (found[1].error or "").startswith("ValueError: this cell is cursed")
        assert (found[2].error or "").endswith("(2 times, the last time alone)")
        assert found[3].error == "hung: no result 1 s past the time limit of 1 s"
        assert found[4].done
        assert not list(made.events())
        with pytest.raises(MachineError, match=r"with child 6 .*, 2 times, the last time alone: see Ray's"):
            run(made, [task(6, "is killed")])


@needs_ray
@pytest.mark.slow
def test_data_that_a_host_cannot_open_or_that_are_others_there_are_sent(joined: Any, tmp_path: Path) -> None:
    for name, images, reason in (("npz:/nowhere.npz", 0, "nowhere"), ("digits", 64, "is other images there")):
        said = list[str]()
        settings = replace(SETTINGS, data=name, train_images=images)
        with executor(tmp_path, settings, most=1, say=said.append) as made:
            made.start(SPEC, Source())
            assert run(made, [task(0)])[0][0].done
        (line,) = said
        assert "receives the data through the object store" in line
        assert reason in line


@needs_ray
@pytest.mark.slow
def test_hosts_that_are_not_alike_are_refused_in_one_line(
    joined: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pnas_fast.executors import ray_executor
    from pnas_fast.executors.ray_slot import facts

    here = facts
    monkeypatch.setattr(ray_executor, "facts", lambda *given: here(*given) | {"torch": "1.0", "machine": "x"})
    with executor(tmp_path, most=1) as made:
        made.start(SPEC, Source())
        made.submit(task(0))
        with pytest.raises(
            MachineError, match=r"^\S+ has torch \S+, this host 1\.0: install the same[^\n]*$"
        ):
            list(made.events())
    monkeypatch.setattr(ray_executor, "facts", lambda *given: here(*given) | {"machine": "another"})
    said = list[str]()
    with executor(tmp_path, most=1, say=said.append) as made:
        made.start(SPEC, Source())
        assert run(made, [task(0)])[0][0].done
        made.drain()
        made.submit(task(1))
        assert not list(made.events())
    assert len(said) == 1
    assert said[0].startswith("hosts differ (another; ")


@needs_ray
@pytest.mark.slow
def test_a_draining_executor_finishes_what_it_has_begun(joined: Any, tmp_path: Path) -> None:
    (tmp_path / HOLD).touch()
    with executor(tmp_path, most=1) as made:
        made.start(logging_spec(tmp_path), Source())
        for number in range(3):
            made.submit(task(number))
        events = list[Any]()
        while not any(isinstance(event, Progressed) for event in events):
            events += made.events()
        made.drain()
        (tmp_path / HOLD).unlink()
        while happened := list(made.events()):
            events += happened
    assert [event.task.number for event in events if isinstance(event, Finished)] == [0]
    assert [number for number, _, _ in begun(tmp_path)] == [0]


@needs_ray
@pytest.mark.slow
def test_an_evaluator_that_a_host_cannot_make_ends_the_run(joined: Any, tmp_path: Path) -> None:
    from pnas_fast.protocols import EvaluatorError

    with executor(tmp_path, most=1) as made:
        made.start(Spec("nowhere_to_be_found:F", {}), Source())
        made.submit(task(0))
        with pytest.raises(EvaluatorError, match="nowhere_to_be_found cannot be imported"):
            list(made.events())


# Without a cluster.


def test_without_ray_there_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    assert search([*SEARCH, "--out", str(tmp_path / "run"), "--executor", "ray"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("install it with: pip install 'pnas_fast[ray]'\n")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@needs_ray
@pytest.mark.slow
def test_without_a_cluster_there_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    arguments = ["--out", str(tmp_path / "run"), "--executor", "ray", "--ray-address", "127.0.0.1:1"]
    assert search([*SEARCH, *arguments]) == 2
    assert re.fullmatch(
        r".*--ray-address 127\.0\.0\.1:1: no cluster can be used \([^\n]*\n", capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--ray-address auto", "--ray-address with --executor local, allowed is --executor ray"),
        ("--max-children 3", "--max-children with --executor local"),
        ("--executor ray --workers 2", "--workers with --executor ray"),
        ("--executor ray --plan", "--executor ray with --plan"),
        ("--executor ray --evaluator table:x", "--executor ray with --evaluator table:FILE"),
        ("--executor ray --ray-address ray://x:1", "allowed are auto, local and HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(given.split())


@pytest.mark.parametrize("given", ["0", "-1", "x", "1e3", "10001", "²"])
def test_slots_that_cannot_be_are_one_line(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--executor", "ray", f"--max-children={given}"])
    assert end.value.code == 2
    assert "allowed is a number from 1 to 10000" in capsys.readouterr().err


def test_where_children_train_is_no_part_of_a_run() -> None:
    here = parse(["--device", "cpu"])
    there = parse(["--device=cpu", "--executor=ray", "--ray-address=[::1]:6379", "--max-children=7"])
    assert there.config == here.config
    assert (here.ray, there.ray) == (None, Wish("[::1]:6379", 7))


@pytest.mark.parametrize("per_gpu", range(1, 40))
def test_a_gpu_holds_the_slots_that_it_is_divided_by(per_gpu: int) -> None:
    demand = Demand.of("cuda", 1, per_gpu)
    assert demand.gpus * per_gpu <= 1
    assert ray_cluster.fitting({"CPU": 1000.0, "GPU": 3.0}, demand) == 3 * per_gpu
    assert ray_cluster.fitting({"CPU": 5.0, "GPU": 3.0}, demand) == min(5, 3 * per_gpu)
    assert ray_cluster.fitting({"CPU": 5.0}, demand) == 0


def test_a_host_s_folder_goes_with_the_last_who_holds_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    first, second = HostFolder("run", base), HostFolder("run", base)
    (first.path / "data").mkdir()
    first.leave()
    first.leave()
    assert second.path.is_dir()
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom pnas_fast.executors.host_folder import HostFolder\n"
    )
    program += "HostFolder('killed', Path(sys.argv[1]))\nos._exit(1)"
    subprocess.run([sys.executable, "-c", program, str(base)], check=False, cwd=ROOT)
    assert (base / "killed").is_dir()
    other = HostFolder("other", base)
    assert not (base / "killed").exists()
    second.leave()
    assert sorted(path.name for path in base.iterdir()) == [".lock", "other"]
    other.leave()


# The page on it.


def block_of(heading: str, language: str) -> str:
    """The first block in a language below a heading of docs/ray.md."""
    text = (ROOT / "docs" / "ray.md").read_text("utf-8").split(f"## {heading}\n")[1]
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def asked(words: str) -> Wish | None:
    return parse([*words.partition("pnas_fast.search ")[2].split(), "--device", "cpu"]).ray


def test_the_commands_for_two_hosts_are_allowed() -> None:
    (command,) = [line for line in block_of("Two hosts", "sh").splitlines() if "search" in line]
    assert asked(command.partition("#")[0]) == Wish()


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize(("status", "signalled"), [(75, True), (75, False), (0, False), (2, False)])
def test_the_script_for_slurm_starts_ray_everywhere_tells_the_search_and_requeues(
    tmp_path: Path, nodes: int, status: int, signalled: bool
) -> None:
    # A search that is told to end by the script, which was told so by Slurm.
    told = f"trap 'exit {status}' USR1; kill -USR1 $PPID; while :; do sleep 0.05; done"
    bodies = {
        "ray": "", "srun": "", "scontrol": "", "hostname": "echo first",
        "python": told if signalled else f"exit {status}",
    }  # fmt: skip
    for name, body in bodies.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/said\n{body}\n')
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_CPUS_PER_TASK": "16",
    }  # fmt: skip
    script = ["bash", "-c", block_of("Slurm", "bash")]
    done = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    said = [line for line in (tmp_path / "said").read_text().splitlines() if not line.startswith("hostname")]
    steps = [line for line in said if line.startswith("srun")]
    assert len(steps) == (nodes > 1)
    assert all(line.startswith("srun --nodes=3 --ntasks=3 --exclude=first ray start") for line in steps)
    (command,) = [line for line in said if line.startswith("python")]
    assert asked(command) == Wish("first:6379")
    rest = [line for line in said if line not in (command, *steps)]
    again = ["scontrol requeue 17"] * (status == 75)
    assert [line.split(" --")[0] for line in rest] == ["ray start", "ray stop", *again]


def test_the_manifest_for_kuberay_is_of_its_form_and_its_search_is_allowed() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML, which comes with ray, is not installed")
    manifest = yaml.safe_load(block_of("Kubernetes", "yaml"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert asked(manifest["spec"]["entrypoint"]) == Wish(most=16)
    ray = manifest["spec"]["rayClusterSpec"]
    for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes
