"""Every command line of README and of the pages it links to is understood; cheap ones are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnas_fast.compare import cli as compare_cli
from pnas_fast.data import __main__ as data_command
from pnas_fast.export import cli as export_cli
from pnas_fast.infer import cli as infer_cli
from pnas_fast.search import cli as search_cli
from pnas_fast.search import command as search_command
from pnas_fast.train import cli as train_cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md", "docs/data.md", "docs/training.md", "docs/deploy.md", "docs/kernels.md", "docs/compare.md",
    "docs/tracking.md",
)  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


def lines() -> list[str]:
    """The command lines of all pages, without their remarks."""
    found = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return list(dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in found if line.strip()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the lines name: a run of today and pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.copytree(ROOT / "tests" / "data" / "run_of_schema_2", tmp_path / "runs" / "paper")
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for name in ("cat.jpg", "photos/dog.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "pnas_fast.search": search_cli.parse,
    "pnas_fast.compare": compare_cli.parse,
    "pnas_fast.train": lambda arguments: train_cli.parse(arguments, 1),
    "pnas_fast.export": export_cli.parse,
    "pnas_fast.infer": infer_cli.parse,
    "pnas_fast.data": data_command.parse,
}


@pytest.mark.parametrize("line", lines())
def test_a_line_is_understood(line: str, folder: Path) -> None:
    words = shlex.split(line)
    if "--preset" in words:  # it begins the run that others go on with
        shutil.rmtree(folder / "runs" / "paper")
    if words[:2] == ["python", "-m"] and words[2] in PARSERS:
        PARSERS[words[2]](words[3:])
    elif words[:2] == ["python", "-m"] or words[:1] == ["python"]:
        target = words[1:3] if words[1] == "-m" else words[1:2]
        where = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        script = target if words[1] == "-m" else [str(ROOT / words[1])]
        done = subprocess.run(
            [sys.executable, *script, "--help"], capture_output=True, env=where, check=False, cwd=folder
        )
        assert done.returncode == 0, done.stderr
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    elif words[0] == "torchrun":
        # That torchrun hands it on is tried with two processes elsewhere.
        arguments = words[words.index("pnas_fast.train") + 1 :]
        train_cli.parse(arguments, 2)
    else:
        assert words[0] in ("pip", "python3", ".", "tensorboard", "optuna-dashboard"), line


def test_from_a_run_to_a_classified_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines after a search, as they are written."""
    said = "\n".join(blocks("README.md", "sh"))
    for line in (
        "python -m pnas_fast.export --run runs/paper --output best.onnx",
        "python -m pnas_fast.infer --model best.onnx cat.jpg photos/",
        "python -m pnas_fast.report runs/paper",
    ):
        assert line in said
        where = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": str(folder)}
        done = subprocess.run(
            [sys.executable, *shlex.split(line)[1:]], capture_output=True, text=True, env=where, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "paper" / "report.html").is_file()


def test_a_run_of_an_earlier_version_is_not_continued(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert search_command.main(["--out", "runs/paper", "--device", "cpu"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "was made by an earlier version, whose runs can be read but not continued" in errors


def test_programs_are_python(folder: Path) -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            compile(block, page, "exec")
            for line in block.splitlines():
                if line.startswith("from pnas_fast"):
                    exec(line, {})
