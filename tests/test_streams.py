"""Commands whose output cannot be encoded, is not read, or cannot be written: real processes."""

import importlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pnas_fast
from pnas_fast.__main__ import COMMANDS
from pnas_fast.__main__ import main as listing

pytestmark = pytest.mark.slow

ROOT = Path(pnas_fast.__file__).parent
ODD = os.fsdecode(b"caf\xe9 [lr=0.1] :smile:")
"""A name that is no UTF-8, and that looks like markup."""

ENCODINGS = ["cp1252", "ascii", "utf-8:strict", "ascii:surrogateescape"]


def run(*command: str, encoding: str | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A Python process with its output's encoding."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    if encoding is not None:
        environment["PYTHONIOENCODING"] = encoding
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "check": False, "env": environment}
    return subprocess.run([sys.executable, *command], **settings | options)  # type: ignore[call-overload,no-any-return]


def text_of(body: str) -> str:
    """A small command, given as the lines of its ``main``."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    start = "import os, sys, threading\nfrom pnas_fast.cli.streams import run_command\n@run_command\n"
    return f"{start}def main():\n{lines}\nsys.exit(main())"


def program(body: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a small command."""
    return run("-c", text_of(body), *arguments, **options)


def unread(*command: str, both: bool = False, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A process whose output goes into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return run(*command, stdout=writer, stderr=writer if both else subprocess.PIPE, **options)
    finally:
        os.close(writer)


# Small commands.


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_text_can_be_printed(encoding: str) -> None:
    done = program(
        "print('rho ρ', sys.argv[1])\nprint('rho ρ', sys.argv[1], file=sys.stderr)\nreturn 0",
        ODD,
        encoding=encoding,
    )
    assert done.returncode == 0
    for text in (done.stdout, done.stderr):
        assert text.startswith(b"rho ")
        assert text.strip().endswith(b"caf\\udce9 [lr=0.1] :smile:")


def test_an_error_handler_that_was_asked_for_stays() -> None:
    done = program("print('rho ρ')\nreturn 0", encoding="ascii:xmlcharrefreplace")
    assert (done.returncode, done.stdout) == (0, b"rho &#961;\n")


LOOP = "for number in range(100000):\n    print(number)\nprint('end', file=sys.stderr)\nreturn 0"


@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
def test_a_pipe_that_nobody_reads_ends_a_command_in_silence(unbuffered: list[str]) -> None:
    body = "try:\n    for number in range(100000): print(number)\nexcept Exception: return 2\nreturn 0"
    done = unread(*unbuffered, "-c", text_of(body))
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_first_lines_are_there_for_who_reads_only_them() -> None:
    command = [sys.executable, "-c", text_of(LOOP)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.parametrize("end", ["return 0", "return 2", "sys.exit(0)", "raise KeyboardInterrupt"])
def test_what_is_printed_last_may_be_what_nobody_reads(end: str) -> None:
    done = unread("-c", text_of(f"print('a little')\n{end}"))
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_thread_whose_output_is_not_read_says_nothing() -> None:
    start = "thread = threading.Thread(target=print, args=['x' * 100000])\nthread.start()\n"
    done = unread("-c", text_of(f"{start}thread.join()\nreturn 0"))
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_command_cleans_up_when_nobody_reads() -> None:
    body = "try: print('x' * 100000)\nfinally: print('cleaned', file=sys.stderr)"
    assert unread("-c", text_of(body)).stderr == b"cleaned\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("end", "status"), [("return 0", 1), ("return 2", 2), ("sys.exit(0)", 1)])
def test_a_full_disk_is_one_line_and_the_command_goes_on(end: str, status: int) -> None:
    body = f"for _ in range(9): print('x' * 9999, flush=True)\nprint('end', file=sys.stderr)\n{end}"
    with open("/dev/full", "wb") as full:
        done = program(body, stdout=full)
    assert done.returncode == status
    first, last = done.stderr.decode().splitlines()
    assert first == "-c: standard output cannot be written to (No space left on device): output is lost"
    assert last == "end"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_for_both_is_silent() -> None:
    with open("/dev/full", "wb") as full:
        done = program("print('a'); print('b', file=sys.stderr)\nreturn 0", stdout=full, stderr=full)
    assert done.returncode == 1


def test_streams_that_are_closed_lead_nowhere(tmp_path: Path) -> None:
    path, script = tmp_path / "file", tmp_path / "script.py"
    body = "print('out'); print('err', file=sys.stderr)\n"
    body += "with open(sys.argv[1], 'w'): os.write(1, b'!')\nreturn 3"
    script.write_text(text_of(body))
    shell = f"exec '{sys.executable}' '{script}' '{path}' <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], check=False).returncode == 3
    assert path.read_bytes() == b""


def test_a_pipe_that_does_not_wait_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-c", text_of(LOOP)]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            assert file.read().split() == [b"%d" % number for number in range(100000)]
        assert process.wait() == 0


WRITING = """\
from pathlib import Path
import time
from pnas_fast.files import replacing
with replacing(Path(sys.argv[1])) as path:
    path.write_text('half')
    print('ready', flush=True)
    time.sleep(60)
    return 0"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_half_written_file(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", text_of(WRITING), str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_ends_at_once_what_does_not_end() -> None:
    kill = f"os.kill(os.getpid(), {signal.SIGTERM})"
    body = f"try: {kill}\nfinally: {kill}\nreturn 0"
    assert program(body).returncode == -signal.SIGTERM


def test_a_signal_that_was_to_be_ignored_still_is() -> None:
    body = f"os.kill(os.getpid(), {signal.SIGHUP})\nprint('goes on')\nreturn 0"
    done = program(body, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (done.returncode, done.stdout) == (0, b"goes on\n")


def test_a_callers_signals_are_left_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    assert listing([]) == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(listing, []).result() == 0


def test_ctrl_c_that_nobody_handles_is_no_traceback() -> None:
    done = program("raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_defect_still_has_its_traceback() -> None:
    done = program("raise RuntimeError('ρ')", encoding="ascii")
    assert done.returncode == 1
    assert b"RuntimeError: \\u03c1" in done.stderr


def test_streams_of_a_caller_are_left_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    assert listing([]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert "python -m pnas_fast.search" in capsys.readouterr().out


# All commands.


def test_every_program_is_listed() -> None:
    programs = set()
    for folder, _, names in os.walk(ROOT, followlinks=True):
        for path in (Path(folder) / name for name in names if name.endswith(".py")):
            if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                programs.add(name.removesuffix(".__main__"))
    inner = {"__main__", "executors.worker", "executors.fork_server", "kernels.triton.compiler"}
    inner.add("latency.time_networks")  # for other machines
    assert programs - inner == set(COMMANDS)


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in COMMANDS)])
def test_every_command_has_a_version_and_bears_a_pipe_that_nobody_reads(name: str) -> None:
    done = unread("-m", f"pnas_fast{name}", "--version")
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("name", ["", ".search"])
def test_the_version_is_the_packages(name: str) -> None:
    done = run("-m", f"pnas_fast{name}", "--version")
    expected = f"pnas_fast {pnas_fast.__version__}\n".encode()
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_main_is_wrapped(name: str) -> None:
    module = f"pnas_fast.{name}" + ("" if "." in name else ".__main__")
    assert hasattr(importlib.import_module(module).main, "__wrapped__")


def test_the_list_of_commands_needs_no_pytorch() -> None:
    done = run(
        "-c", "import sys, pnas_fast.__main__; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    )
    assert done.returncode == 0


def test_importing_the_commands_library_changes_nothing() -> None:
    done = run(
        "-c",
        "import atexit, signal, sys\n"
        "import rich.progress, logging\n"
        "state = lambda: (atexit._ncallbacks(), [signal.getsignal(n) for n in signal.valid_signals()],\n"
        "                 sys.stdout, sys.stdout.errors)\n"
        "before = state()\n"
        "import pnas_fast.cli.commands, pnas_fast.__main__\n"
        "assert state() == before",
    )
    assert (done.returncode, done.stderr) == (0, b"")


TINY = ["--operations", "identity,max_pool3x3", "--train-images", "64", "--epochs", "1", "--filters", "4"]
TINY += ["--repeats", "1", "--device", "cpu"]
SEARCH = [*TINY, "--workers", "1", "--finalists", "0"]


def test_a_search_in_an_odd_folder_ends_well_in_any_encoding(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    options = ["--blocks", "2", "--beam", "2", *SEARCH, "--out", str(folder)]
    done = run("-m", "pnas_fast.search", *options, encoding="cp1252")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "report.html").is_file()


def test_a_search_that_nobody_watches_ends_in_silence_and_goes_on_later(tmp_path: Path) -> None:
    options = ["--blocks", "1", "--beam", "2", *SEARCH, "--out", str(tmp_path / "run")]
    done = unread("-m", "pnas_fast.search", *options)
    assert (done.returncode, done.stderr) == (141, b"")
    assert run("-m", "pnas_fast.search", "--out", str(tmp_path / "run")).returncode == 0


def test_a_training_in_an_odd_folder_ends_well_in_any_encoding(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    options = ["--cell", "0:identity+1:identity", "--data", "digits", "--auxiliary", "0", "--cutout", "0"]
    tiny = [*TINY[2:], "--batch", "32"]
    done = run("-m", "pnas_fast.train", *options, *tiny, "--out", str(folder), encoding="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "best.safetensors").is_file()
    done = unread("-m", "pnas_fast.train", "--out", str(folder))
    assert (done.returncode, done.stderr) == (141, b"")


EXPORT = ["-m", "pnas_fast.export", "--cell", "0:identity+1:max_pool3x3", "--repeats", "1", "--filters", "4"]
EXPORT += ["--classes", "10", "--image", "8", "--output"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported network, exported where only ASCII can be printed."""
    folder = tmp_path_factory.mktemp("model") / "ρ [lr=0.1] :smile:"
    folder.mkdir()
    done = run(*EXPORT, str(folder / "m.onnx"), encoding="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    return folder / "m.onnx"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8:strict"])
def test_images_of_any_name_are_classified(model: Path, tmp_path: Path, encoding: str) -> None:
    for name in ("a.png", os.fsdecode(b"caf\xe9.png"), "ρ.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    done = run("-m", "pnas_fast.infer", "--model", str(model), str(tmp_path), encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b".png") == 3


def test_exports_and_inferences_that_nobody_reads_are_silent(model: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    done = unread("-m", "pnas_fast.infer", "--model", str(model), str(tmp_path))
    assert (done.returncode, done.stderr) == (141, b"")
    done = unread(*EXPORT, str(tmp_path / "n.onnx"), both=True)
    assert done.returncode == 141
    assert not list(tmp_path.glob(".*"))


def test_the_zoo_is_listed_in_any_encoding() -> None:
    done = run("-m", "pnas_fast.zoo", encoding="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"PNASNet-5" in done.stdout


@pytest.mark.parametrize(
    "given",
    [
        ["search", "--data", f"cifar10:{ODD}ρ"],
        ["export", "--model", f"{ODD}ρ", "--output", "m.onnx"],
        ["infer", "--model", f"{ODD}ρ", "x.png"],
    ],
    ids=lambda given: given[0],
)
def test_what_was_given_wrongly_is_told_in_any_encoding(given: list[str], tmp_path: Path) -> None:
    done = run("-m", f"pnas_fast.{given[0]}", *given[1:], encoding="ascii", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode("ascii").count("\n") == 1
    assert b"Error" not in done.stderr
