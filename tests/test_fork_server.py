"""Forked processes: their streams and exit codes, and that all end when one of those before them does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pnas_fast.executors.fork_server import AVAILABLE, ForkServer, ForkServerError, end_servers, fork_server

SERVED = """
import os, sys

def main():
    for line in sys.stdin:
        print(os.getpid(), line.strip(), flush=True)
        if line == "leave\\n":
            sys.exit(3)
        if line == "break\\n":
            raise ValueError("broken")
"""

PROGRAM = """
import os, select, signal, socket, sys
from pnas_fast.executors.fork_server import ForkServer
server = ForkServer("served")
forked = [server.fork(sys.stderr.buffer) for _ in range(2)]
print(server.pid, *(process.pid for process in forked), flush=True)
if "asking" in sys.argv:
    socket.send_fds(server._socket, [b'["fork"]'], [0, 1, 2])
    select.select([server._socket], [], [])  # the answer is there, and unread
os.kill(os.getpid(), signal.SIGKILL)
"""

IMPORTS = """
import os, torch
def never(*_): raise AssertionError("CUDA would be initialised, which no fork survives")
for name in ("is_available", "device_count", "init", "_lazy_init"):
    setattr(torch.cuda, name, never)
import pnas_fast.executors.worker
print(len(os.listdir("/proc/self/task")))
"""


pytestmark = pytest.mark.skipif(not AVAILABLE, reason="processes are forked on Linux alone")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that can be served."""
    (tmp_path / "served.py").write_text(SERVED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of programs
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def server(served: Path) -> Iterator[ForkServer]:
    found = ForkServer("served")
    yield found
    found.close()


def gone(pid: int) -> bool:
    """Wait until a process has ended, however long it takes."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("word", "code", "complaint"), [("stay", -9, ""), ("leave", 3, ""), ("break", 1, "ValueError: broken\n")]
)
def test_processes_have_their_own_streams_and_codes(
    server: ForkServer, tmp_path: Path, word: str, code: int, complaint: str
) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        processes = [server.fork(errors) for _ in range(2)]
    assert processes[0].pid != processes[1].pid
    for process in processes:
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{process.pid} {word}\n"
        if word != "stay":
            assert process.stdout.readline() == ""
        assert process.end() == code
        assert process.end() == code
        assert gone(process.pid)
        process.stdin.close()
        process.stdout.close()
    assert (tmp_path / "errors").read_text().endswith(complaint)
    assert bool((tmp_path / "errors").read_text()) == bool(complaint)


def test_processes_end_with_their_server(served: Path) -> None:
    first = fork_server("served")
    assert fork_server("served") is first
    with (served / "errors").open("wb") as errors:
        process = first.fork(errors)
        os.kill(first.pid, signal.SIGKILL)
        with process.stdout, process.stdin:
            assert process.stdout.readline() == ""
        assert gone(process.pid)
        assert process.end() == -9
        with pytest.raises(ForkServerError, match="ended, exit status -9"):
            first.fork(errors)
    second = fork_server("served")
    assert second is not first
    assert second.alive
    second.close()
    first.close()


def test_a_question_that_was_interrupted_is_the_servers_last(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer would be taken for that to the next one, and some process killed that is not ours."""
    server = fork_server("served")
    with (served / "errors").open("wb") as errors:
        process = server.fork(errors)
        send = socket.send_fds

        def interrupted(*arguments: Any) -> None:
            send(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(socket, "send_fds", interrupted)
            with pytest.raises(KeyboardInterrupt):
                server.fork(errors)
    assert not server.alive
    assert gone(process.pid)
    assert process.end() == -9
    process.stdin.close()
    process.stdout.close()
    again = fork_server("served")
    assert again is not server
    end_servers()
    assert not again.alive


def test_only_its_own_processes_are_ended(server: ForkServer) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(ForkServerError, match="exit status 1"):
            server.end(other.pid)
        assert other.poll() is None
        other.kill()


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("when", ["idle", "asking"])
def test_all_end_with_the_program_however_it_ends(when: str, tmp_path: Path) -> None:
    # Not a pipe: it would be read until all have ended.
    with (tmp_path / "out").open("w+") as out, (tmp_path / "complaints").open("w+") as complaints:
        command = [sys.executable, "-c", PROGRAM, when]
        done = subprocess.run(command, stdout=out, stderr=complaints, check=False)
        assert done.returncode == -9
        out.seek(0)
        pids = [int(pid) for pid in out.read().split()]
        assert len(pids) == 3
        assert all(map(gone, pids))
        complaints.seek(0)
        assert complaints.read() == ""


def test_a_module_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    server = ForkServer("nowhere.at_all")
    with (
        (tmp_path / "errors").open("wb") as errors,
        pytest.raises(ForkServerError, match="ended, exit status 1"),
    ):
        server.fork(errors)
    assert server.complaints.endswith(b"ModuleNotFoundError: No module named 'nowhere'\n")
    server.close()


def test_a_server_that_is_stopped_is_not_waited_for_without_a_limit(
    server: ForkServer, tmp_path: Path
) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        process = server.fork(errors)
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(ForkServerError, match=r"gives no answer for 0\.1 s"):
            server.fork(errors, 0.1)
    assert gone(process.pid)
    assert process.end() == -9
    process.stdin.close()
    process.stdout.close()


def test_a_process_may_end_by_itself(server: ForkServer, tmp_path: Path) -> None:
    """Whoever asks why it has ended is told that, not that it was killed a moment too early."""
    with (tmp_path / "errors").open("wb") as errors:
        process = server.fork(errors)
    process.stdin.write("leave\n")
    process.stdin.flush()
    assert process.end(60.0) == 3
    process.stdin.close()
    process.stdout.close()


def test_a_server_that_is_importing_ends_with_the_program(tmp_path: Path) -> None:
    """It would read the end of its input only when it is done."""
    (tmp_path / "slow.py").write_text(
        "import os, threading\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        f"open({str(tmp_path / 'importing')!r}, 'w').close()\n"
        "threading.Event().wait()\n"
    )
    os.mkfifo(tmp_path / "importing")
    program = (
        "import os, signal\n"
        "from pnas_fast.executors.fork_server import ForkServer\n"
        "server = ForkServer('slow')\n"
        f"open({str(tmp_path / 'importing')!r}).read()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == -9
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_workers_import_can_be_forked() -> None:
    """It leaves CUDA alone and starts no thread."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


def test_importing_the_package_does_not_import_torch() -> None:
    script = (
        "import sys, pnas_fast.executors.fork_server; print('torch' in sys.modules); pnas_fast.SearchConfig()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
