"""Networks for PyTorch alone: as one Python file with its weights, and as programs of torch.export."""

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from exported_run import CELL, make_run
from pnas_fast.data import digits
from pnas_fast.export import plain
from pnas_fast.export.__main__ import main
from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat, of_model
from pnas_fast.export.literals import in_docstring, string
from pnas_fast.export.model_file import InputType
from pnas_fast.export.plain import DESCRIPTION, export_program, export_source
from pnas_fast.export.source import write_source
from pnas_fast.export.subject import Subject, run_subject
from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.network.operations import EXTRA_OPERATIONS
from pnas_fast.space import OPERATIONS
from reference_pnasnet import perturb
from test_export_graph import LAYOUTS, network_of, random_cell

TOLERANCE = 1e-5
ANY_CELL = "--cell 0:sep3x3+1:identity --repeats 1 --filters 4 --classes 2 --image 9x8"

ELSEWHERE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pnas_fast":
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
sys.path = [place for place in sys.path if place != ""]
sys.path.insert(0, sys.argv[1])
import torch
import net
network = net.load()
assert not network.training
assert not [name for name in sys.modules if name.startswith("pnas_fast")]
with torch.no_grad():
    torch.save(network(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


def error_of(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def pixels_of(images: ImageFormat, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, images.height, images.width, images.channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def normalised(pixels: Tensor, images: ImageFormat) -> Tensor:
    mean, std = torch.tensor(images.mean), torch.tensor(images.std)
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def elsewhere(folder: Path, inputs: Tensor) -> Tensor:
    """Logits of ``net.py`` in a process that has no pnas_fast."""
    torch.save(inputs, folder / "in.pt")
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), str(folder / "in.pt"), str(folder / "out.pt")],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        check=True,
    )
    logits: Tensor = torch.load(folder / "out.pt", weights_only=True)
    return logits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("formats") / "run")


@pytest.fixture(scope="module")
def small() -> Subject:
    network = network_of(Genotype.parse(str(CELL)), Layout(repeats=1, filters=4), (3, 9, 8))
    return Subject(network, "small", of_model(None, network.image_shape), ["a", "b", "c", "d", "e"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_the_source_of_a_run_gives_its_logits_where_there_is_no_pnas_fast(
    run: Path, tmp_path: Path, kind: str
) -> None:
    arguments = ["--run", str(run), "--output", str(tmp_path / "net.py"), "--input", kind]
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "net.safetensors"]
    subject = run_subject(run)
    pixels = digits.load().validation_images[:8].permute(0, 2, 3, 1)
    prepared = normalised(pixels, subject.images)
    with torch.no_grad():
        wanted = subject.network.eval()(prepared)
    found = elsewhere(tmp_path, pixels if kind == "uint8" else prepared)
    assert error_of(found, wanted) < TOLERANCE
    text = (tmp_path / "net.py").read_text()
    assert f"Cell: {CELL}\nLayout: 3 cells, repeats 1, filters 8\n" in text
    assert "import pnas_fast" not in text
    assert "from pnas_fast" not in text


def loaded(network: CellNetwork, **options: Any) -> tuple[torch.nn.Module, str]:
    """The module of a network's source."""
    given: dict[str, Any] = {"raw": False, "title": "any", "class_names": None, **options}
    source = write_source(network, of_model(None, network.image_shape), **given)
    space: dict[str, Any] = {"__name__": "net", "__file__": "net.py"}
    exec(compile(source.text, "net.py", "exec", dont_inherit=True), space)
    module = space["Network"]()
    module.load_state_dict(source.tensors)
    return module.eval(), source.text


def assert_same(network: CellNetwork) -> str:
    module, text = loaded(network)
    images = torch.randn(3, *network.image_shape)
    with torch.no_grad():
        assert error_of(module(images), network.eval()(images)) < TOLERANCE, str(network.genotype)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_sources_of_random_cells(seed: int) -> None:
    for operations in (OPERATIONS, EXTRA_OPERATIONS):
        cell = random_cell(seed + 2, operations, random.SystemRandom().randrange(2**31))
        assert_same(network_of(Genotype.parse(cell), Layout(repeats=2, filters=6), (3, 13, 10)))


@pytest.mark.parametrize("filters", [2, 4])
@pytest.mark.parametrize("operation", [*OPERATIONS, *EXTRA_OPERATIONS])
def test_the_source_of_each_operation(operation: str, filters: int) -> None:
    cell = f"0:{operation}+1:{operation},2:{operation}+0:identity"
    assert_same(network_of(Genotype.parse(cell), Layout(repeats=1, filters=filters), (1, 8, 11)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_sources_of_published_cells_and_layouts(name: str) -> None:
    assert_same(network_of(*LAYOUTS[name], (3, 35, 32)))


def test_what_no_output_depends_on_is_left_out() -> None:
    genotype = Genotype.parse("1:sep7x7+1:sep7x7,0:max_pool2x2+0:max_pool3x3=>3,0")
    text = assert_same(network_of(genotype, Layout(repeats=1, filters=4), (3, 8, 8)))
    assert "SeparableHalf" not in text
    assert "x1 =" not in text


def test_what_belongs_to_training_is_left_out() -> None:
    layout = Layout(repeats=1, filters=4, dropout=0.5)
    cell = Genotype.parse("0:sep3x3+1:identity")
    network = CellNetwork(cell, layout, 5, (3, 24, 24), drop_path=0.4, auxiliary=True)
    perturb(network.eval(), seed=0)
    assert_same(network)


def test_sources_are_as_ruff_writes_them(tmp_path: Path) -> None:
    names = ["plain", 'in "quotes"', "it's", "both ' and \"", "new\nline \\ {x}", '"""', "é"]
    for name, (genotype, layout) in LAYOUTS.items():
        network = network_of(genotype, layout, (3, 32, 32))
        for raw in (False, True):
            _, text = loaded(network, raw=raw, title='a """ \\ {b} \x1b title\\', class_names=names * 2)
            (tmp_path / f"{name}{raw}.py").write_text(text, encoding="utf-8")
    deep = ",".join(["0:conv1x7_7x1+1:identity", *(f"{i}:identity+0:sep3x3" for i in range(2, 20))])
    network = network_of(Genotype.parse(deep + "=>0,1," + ",".join(map(str, range(2, 21)))),
                         Layout(repeats=1, filters=4), (40, 8, 8))  # fmt: skip
    (tmp_path / "wide.py").write_text(assert_same(network), encoding="utf-8")
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(tmp_path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@given(st.text())
def test_names_of_strangers_stay_texts(text: str) -> None:
    assert eval(string(text)) == text
    title = f'"""{in_docstring(text)}."""'
    assert isinstance(eval(title), str)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_a_program_gives_the_same_logits(small: Subject, tmp_path: Path, kind: InputType) -> None:
    export_program(small, tmp_path / "m.pt2", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
    said = {DESCRIPTION: ""}
    module = torch.export.load(tmp_path / "m.pt2", extra_files=said).module()
    found = json.loads(said[DESCRIPTION])
    assert (found["cell"], found["input"], found["title"]) == (str(CELL), kind, "small")
    assert json.loads(found["classes"]) == small.class_names
    pixels = pixels_of(small.images, 8)
    prepared = normalised(pixels, small.images)
    for count in (1, 3, 8):
        with torch.no_grad():
            logits = module((pixels if kind == "uint8" else prepared)[:count])
            assert error_of(logits, small.network(prepared[:count])) < TOLERANCE


def test_a_program_holds_no_pickle(small: Subject, tmp_path: Path) -> None:
    export_program(small, tmp_path / "m.pt2")
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        for entry in archive.infolist():
            content = archive.read(entry)
            assert not entry.filename.endswith((".pt", ".pkl")) or not content, entry.filename
            if entry.filename.endswith("_config.json"):
                tensors = json.loads(content)["config"].values()
                assert not any(tensor["use_pickle"] for tensor in tensors)


@pytest.mark.parametrize("write", [export_source, export_program])
def test_a_failed_check_leaves_what_was_there(
    write: Callable[..., Any], small: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.py").write_bytes(b"old")
    real = plain.ModuleRunner.run
    monkeypatch.setattr(plain.ModuleRunner, "run", lambda self, images: real(self, images) * 1.01)
    for name in ("old.py", "new.py"):
        with pytest.raises(ExportError, match=r"logits of 1 random images differ from PyTorch's by 0\.01 of"):
            write(small, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.py"]
    assert (tmp_path / "old.py").read_bytes() == b"old"


def test_a_source_replaces_its_own_weights_and_nobody_elses(
    run: Path, small: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        export_source(small, tmp_path / "net.py")
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "net.py").stat().st_mode
    assert set(load_file(tmp_path / "net.safetensors")) >= {"classifier.weight", "stem.norm.running_var"}
    shutil.copytree(run, tmp_path / "run")
    best = tmp_path / "run" / "best.safetensors"
    before = best.read_bytes()
    assert main(["--run", str(tmp_path / "run"), "--output", str(tmp_path / "run" / "best.py")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{best}: is in the way of the exported weights" in error
    assert best.read_bytes() == before
    assert not (tmp_path / "run" / "best.py").exists()
    save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors", {"written_by": "somebody"})
    (tmp_path / "c.safetensors").write_bytes(b"x")
    (tmp_path / "d.safetensors").mkdir()
    (tmp_path / "e.safetensors").symlink_to("nowhere")
    for name in "bcde":
        with pytest.raises(ExportError, match=rf"{name}\.safetensors: is in the way"):
            export_source(small, tmp_path / f"{name}.py")
        assert not (tmp_path / f"{name}.py").exists()


def test_the_format_is_the_ending_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, asked in (
        ("a.py", ""),
        ("a.pt2", ""),
        ("a.onnx", ""),
        ("a.bin", ""),
        ("B.PY", "--format source"),
    ):
        assert main([*ANY_CELL.split(), "--output", str(tmp_path / name), *asked.split()]) == 0
    assert "2 classes" not in capsys.readouterr().err
    assert (tmp_path / "a.py").read_text().startswith('"""1 × 4 of a cell: a network as plain PyTorch')
    assert (tmp_path / "B.PY").read_text() == (tmp_path / "a.py").read_text()
    assert zipfile.is_zipfile(tmp_path / "a.pt2")
    assert not zipfile.is_zipfile(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "--output m.onnx --format source",
            "m.onnx: ends in .onnx, --format source writes files that end in .py",
        ),
        ("--output m.py --format onnx", "ends in .py, --format onnx writes files that end in .onnx"),
        ("--output m.py --format torch_export", "ends in .py, --format torch_export writes"),
        ("--output m.PT2 --format source", "ends in .pt2, --format source writes files that end in .py"),
        ("--output m --format source", "ends in nothing, --format source writes files that end in .py"),
        ("--output m.bin --format torch_export", "ends in .bin, --format torch_export writes"),
        ("--output m --format onx", "invalid choice: 'onx'"),
        ("--output m.py --precision fp16", "--precision fp16 does not go with --format source"),
        ("--output m.pt2 --batch 2", "--batch 2 does not go with --format torch_export"),
        ("--output m.py --images none", "no such file or folder"),
        ("--output m.py --filters 65536 --cell 0:sep3x3+1:sep3x3", "the network is too large"),
    ],
)
def test_contradictions_are_one_line(
    arguments: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status: int | str | None
    try:
        status = main([*ANY_CELL.split(), *arguments.split()])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_accuracy_is_measured_in_every_format(run: Path, tmp_path: Path) -> None:
    subject = run_subject(run)
    for write, name in ((export_source, "m.py"), (export_program, "m.pt2")):
        exported = write(subject, tmp_path / name)
        assert exported.accuracy is not None
        assert exported.real is not None
        assert exported.accuracy.file == exported.accuracy.network > 0.8
        assert np.isfinite(exported.real.error)
