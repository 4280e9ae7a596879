"""Exported files: forms, checks, what they say about themselves, and the command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from exported_run import CELL, make_run
from pnas_fast.data import digits
from pnas_fast.engine import evaluate
from pnas_fast.export import checks, exporting, model_file
from pnas_fast.export.__main__ import main
from pnas_fast.export.errors import ExportError, require
from pnas_fast.export.exporting import export_model
from pnas_fast.export.graph import Graph
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.images import as_input, find_images, read_pixels
from pnas_fast.export.model_file import INPUT_TYPES, PRECISIONS, Form, build, check_size
from pnas_fast.export.quantise import quantise
from pnas_fast.export.sessions import open_session
from pnas_fast.export.subject import model_subject, run_subject
from pnas_fast.network import CellNetwork, Genotype, Layout

ANY_CELL = "--cell 0:identity+1:identity --repeats 1"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", INPUT_TYPES)
def test_every_form_of_a_run(run: Path, tmp_path: Path, precision: str, kind: str) -> None:
    subject = run_subject(run)
    batch = 3 if kind == "uint8" else None
    exported = export_model(subject, tmp_path / "m.onnx", Form(precision, kind, batch))
    assert exported.real is not None
    assert exported.accuracy is not None
    assert exported.accuracy.network == evaluate(subject.network, digits.load()).accuracy > 0.8
    assert abs(exported.accuracy.file - exported.accuracy.network) <= 0.02
    assert exported.real.agreement >= 0.98
    assert 0 < exported.real.error < checks.TOLERANCES[precision]

    model = onnx.load(tmp_path / "m.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["cell"], said["precision"], said["input"]) == (str(CELL), precision, kind)
    assert json.loads(said["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(said["accuracy"]) == {
        "top1": exported.accuracy.file,
        "images": 360,
        "validation of": "digits",
    }
    kinds = {numpy_helper.to_array(constant).dtype for constant in model.graph.initializer}
    assert (np.dtype(np.float16) in kinds) == (precision == "fp16")
    assert (np.dtype(np.int8) in kinds) == (precision == "int8")

    session = open_session(tmp_path / "m.onnx", "cpu", threads=1)
    assert session.batch == batch
    pixels = np.ascontiguousarray(digits.load().validation_images[:8].permute(0, 2, 3, 1))
    inputs = as_input(pixels, subject.images, session.dtype)
    with torch.inference_mode():
        wanted = subject.network(torch.from_numpy(as_input(pixels, subject.images, np.float32))).numpy()
    for count in (1, 3, 8):
        found = session.run_all(inputs[:count], 8)
        error = np.linalg.norm(found - wanted[:count]) / np.linalg.norm(wanted[:count])
        assert error < checks.TOLERANCES[precision]


def test_the_normalisation_in_a_file_is_that_of_training(run: Path) -> None:
    data, images = digits.load(), run_subject(run).images
    pixels = data.validation_images[:50]
    found = as_input(pixels.permute(0, 2, 3, 1).numpy(), images, np.float32)
    wanted = (pixels - data.mean[:, None, None]) / data.std[:, None, None]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)


def _without_a_sign(build: object) -> object:
    def broken(*arguments: object) -> onnx.ModelProto:
        model = build(*arguments)
        weight = next(
            item for item in model.graph.initializer if item.name == "cells.2.align_previous.weight"
        )
        weight.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(weight)), weight.name))
        return model

    return broken


def _without_a_node(build: object) -> object:
    def broken(*arguments: object) -> onnx.ModelProto:
        model = build(*arguments)
        del model.graph.node[5]
        return model

    return broken


def _not_a_number(build: object) -> object:
    def broken(*arguments: object) -> onnx.ModelProto:
        model = build(*arguments)
        bias = next(item for item in model.graph.initializer if item.name == "classifier.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * np.nan, bias.name))
        return model

    return broken


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_a_sign, "random images differ from PyTorch's by"),
        (_not_a_number, "differ from PyTorch's by nan of their norm, allowed is 0.0001 in fp32"),
        (_without_a_node, "fails ONNX's checks"),
    ],
)
def test_a_failed_check_leaves_what_was_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object, said: str
) -> None:
    monkeypatch.setattr(exporting, "build", damage(exporting.build))
    (tmp_path / "old.onnx").write_bytes(b"old")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(ExportError, match=re.escape(said)):
            export_model(run_subject(run), tmp_path / name, Form())
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


def test_real_images_are_checked_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting.compare
    monkeypatch.setattr(
        exporting,
        "compare",
        lambda network, session, pixels, images: real(
            network, session, pixels if len(pixels) < 100 else 255 - pixels[::-1], images
        ),
    )
    monkeypatch.setitem(checks.TOLERANCES, "int8", 1e-3)
    with pytest.raises(ExportError, match="360 validation images differ"):
        export_model(run_subject(run), tmp_path / "m.onnx", Form("int8"))
    assert not list(tmp_path.iterdir())


def test_a_published_network_takes_its_own_preprocessing() -> None:
    subject = model_subject("pnasnet5_mobile", size=(64, 48), classes=7)
    assert subject.images == ImageFormat(3, 64, 48, 0.875, (0.5,) * 3, (0.5,) * 3)
    assert ImageFormat.from_json(subject.images.to_json()) == subject.images


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mean": 1, "std": 2}'])
def test_foreign_preprocessing_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match="not one of an export"):
        ImageFormat.from_json(text)


def test_pictures_are_cropped_in_the_middle_and_resized(tmp_path: Path) -> None:
    values = np.zeros((40, 60, 3), np.uint8)
    values[5:35, 15:45] = (200, 100, 50)  # the middle 30 of 40, in both directions
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    images = ImageFormat(3, 10, 10, 0.75, (0.0,) * 3, (1.0,) * 3)
    pixels = read_pixels([tmp_path / "a.png", tmp_path / "grey.png"], images)
    # The filter reaches a little past the crop.
    assert (pixels[0, 1:-1, 1:-1] == (200, 100, 50)).all()
    assert (pixels[0] > (100, 50, 25)).all()
    assert (pixels[1, 1:-1, 1:-1] == 200).all()
    wide = ImageFormat(1, 20, 30, 1.0, (0.0,), (1.0,))
    (grey,) = read_pixels([tmp_path / "grey.png"], wide)
    assert (grey[6:14, 11:19] == 200).all()
    assert grey.shape == (20, 30, 1)
    assert not grey[0].any()


def test_pictures_are_turned_the_right_way_up(tmp_path: Path) -> None:
    values = np.zeros((8, 8), np.uint8)
    values[:, :4] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned by a quarter
    Image.fromarray(values).save(tmp_path / "a.png", exif=turned)
    (pixels,) = read_pixels([tmp_path / "a.png"], ImageFormat(1, 8, 8, 1.0, (0.0,), (1.0,)))
    assert (pixels[:4] == 255).all()
    assert not pixels[4:].any()


def test_folders_are_searched_for_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.PNG", "in/a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == [tmp_path / "b.PNG", tmp_path / "in" / "a.jpg"]
    (tmp_path / "in" / "a.jpg").unlink()
    with pytest.raises(ExportError, match="holds no image"):
        find_images([tmp_path / "in"])
    with pytest.raises(ExportError, match=r"b\.PNG: cannot be read as an image"):
        read_pixels([tmp_path / "b.PNG"], ImageFormat(3, 8, 8, 1.0, (0.0,) * 3, (1.0,) * 3))


def test_the_command_exports_a_cell_and_says_how_it_was_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "names").write_text("red\ngreen\n")
    arguments = f"--cell 0:sep3x3+1:identity --repeats 1 --filters 4 --classes 2 --image 12x9 --batch 2 \
        --class-names {tmp_path}/names --output {tmp_path}/m.onnx"
    assert main(arguments.split()) == 0
    said = capsys.readouterr().out
    assert "random weights" in said
    assert re.search(r"logits differ from PyTorch's by \S+e-\d+, allowed is 0.0001", said)
    session = open_session(tmp_path / "m.onnx", "cpu")
    assert session.input.shape == [2, 3, 12, 9]
    assert json.loads(session.metadata["classes"]) == ["red", "green"]


def test_names_are_shown_as_they_are(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / ("deep" * 40) / "[lr=0.1] :smile: [-bold]"
    shutil.copytree(run, folder)
    assert main(["--run", str(folder), "--output", str(folder / "m.onnx")]) == 0
    said = capsys.readouterr().out
    assert f"best of {folder.name} " in said
    assert f" {folder}/m.onnx, " in said


def test_int8_is_the_same_where_the_model_before_it_is_in_two_files(run: Path, tmp_path: Path) -> None:
    """As it must be beyond 2 GiB."""
    subject = run_subject(run)
    pixels = digits.load().train_images[:16].permute(0, 2, 3, 1).numpy()
    inputs, form = as_input(pixels, subject.images, np.float32), Form("int8")
    found = []
    for apart in (False, True):
        (tmp_path / str(apart)).mkdir()
        model = build(subject.network, subject.images, form)
        found.append(quantise(model, inputs, tmp_path / str(apart), apart=apart).graph)
    assert (tmp_path / "True" / "float32.data").exists()
    one, two = (
        {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer} for graph in found
    )
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert list(found[0].node) == list(found[1].node)


GIGABYTE = 10**9


@pytest.mark.parametrize(
    ("classes", "precision", "memory", "said"),
    [
        (1 << 18, "fp32", 64, "an ONNX file holds up to 2.15 GB of weights, in fp32 it has 2."),
        (1 << 18, "fp16", 64, None),
        (1 << 19, "fp16", 64, "in fp16 it has 2."),
        (1 << 19, "int8", 64, None),
        (
            1 << 19,
            "int8",
            8,
            "making int8 from 1,091,084,800 weights needs about 17 GB of memory, this machine has 8",
        ),
        (1 << 17, "int8", 1, None),
        (1 << 20, "int8", 64, "in int8 it has 2."),
    ],
)
def test_what_is_too_large_for_a_file_is_known_before_it_is_built(
    classes: int, precision: str, memory: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SC_PHYS_PAGES": memory * GIGABYTE, "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(model_file.os, "sysconf", sizes.__getitem__)
    with torch.device("meta"):
        network = CellNetwork(
            Genotype.parse("0:identity+1:identity"), Layout(repeats=1, filters=512), classes, (3, 8, 8)
        )
    if said is None:
        check_size(network, precision)
    else:
        with pytest.raises(ExportError, match=re.escape(said)):
            check_size(network, precision)


def test_a_graph_ends_at_the_size_of_a_file() -> None:
    """Constants are filled up to whole blocks of channels, so weights alone do not tell."""
    graph = Graph(np.float32, 100)
    graph.constant("a", np.zeros(25))
    with pytest.raises(ExportError, match=r"an ONNX file holds up to 2\.15 GB"):
        graph.constant("b", np.zeros(1))


def test_a_weight_that_half_precision_cannot_hold_is_named(run: Path, tmp_path: Path) -> None:
    subject = run_subject(run)
    with torch.no_grad():
        subject.network.classifier.weight[3, 5] = -1e6
    with pytest.raises(ExportError, match=r"^classifier\.weight has a weight of 1e\+06, allowed in fp16"):
        export_model(subject, tmp_path / "m.onnx", Form("fp16"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("theirs", "ours", "precision", "said"),
    [
        (np.inf, 1.0, "fp16", r"by inf .* in fp16; values beyond 65,504 overflow there, fp32 has room"),
        (np.nan, 1.0, "fp16", r"by nan .* in fp16; values beyond 65,504 overflow there, fp32 has room"),
        (np.nan, 1.0, "fp32", r"by nan of their norm, allowed is 0\.0001 in fp32$"),
        (np.nan, np.nan, "fp16", r"by nan .* in fp16; PyTorch's are not finite themselves"),
    ],
)
def test_logits_that_are_no_numbers_are_explained(
    theirs: float, ours: float, precision: str, said: str
) -> None:
    found = checks.comparison(np.full((2, 3), theirs, np.float32), np.full((2, 3), ours, np.float32))
    with pytest.raises(ExportError, match=said):
        checks.require_close(found, precision, "random")


STOPPED = """
import os, sys
from pnas_fast.export import exporting
from pnas_fast.export.__main__ import main
real = getattr(exporting, sys.argv[1])
def stopped(*given, **named):
    real(*given, **named)
    left = os.listdir(sys.argv[3])
    assert len(left) == 1 and left[0].startswith(".m.onnx."), left
    os.kill(os.getpid(), int(sys.argv[2]))
setattr(exporting, sys.argv[1], stopped)
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("function", ["quantise", "check_structure"])
def test_an_export_that_is_stopped_leaves_nothing(
    function: str, number: signal.Signals, run: Path, tmp_path: Path
) -> None:
    arguments = [function, str(int(number)), str(tmp_path)]
    options = ["--run", str(run), "--precision", "int8", "--output", str(tmp_path / "m.onnx")]
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, *arguments, *options], capture_output=True, text=True, check=False
    )
    assert done.stderr == "python -m pnas_fast.export: stopped, nothing was written\n"
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "null", "[" * 100_000, '{"data":' * 100_000, '{"epochs": 1' + "0" * 5000 + "}"]
)
def test_a_run_whose_configuration_is_damaged_is_one_line(
    text: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(text)
    assert main(["--run", str(tmp_path / "run"), "--output", str(tmp_path / "m.onnx")]) == 2
    error = capsys.readouterr().err
    assert "config.json: not the configuration of a run" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "--data synthetic:9x8x1/10",
            "takes images (1, 8, 8) of 10 classes, synthetic:9x8x1/10 has (1, 9, 8) of 10",
        ),
        ("--data synthetic:8x8x3/10", "takes images (1, 8, 8) of 10 classes"),
        ("--data synthetic:8x8x1/3", "of 3"),
        ("--images {folder}/bad", "2 of 3 images are refused"),
        ("--batch 4096 --image 3", "--image does not go with --run"),
    ],
)
def test_data_that_do_not_fit_a_run_are_one_line(
    arguments: str, said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "bad" / name).touch()
    Image.new("L", (9, 9)).save(tmp_path / "bad" / "c.png")
    options = [
        *arguments.format(folder=tmp_path).split(),
        "--run",
        str(run),
        "--output",
        str(tmp_path / "m.onnx"),
    ]
    try:
        status = main(options)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "one of the arguments --run --model --cell is required"),
        ("--model pnasnet5", "allowed are amoebanet_a_cifar"),
        ("--model pnasnet5_cifar --repeats 2", "--repeats and --filters go with --cell"),
        ("--cell 0:sep3x3+1:identity", "--cell needs --repeats and --filters"),
        ("--cell 0:sep9x9+1:identity --repeats 1 --filters 4", "unknown operation 'sep9x9'"),
        ("--run {folder}", "holds no best.safetensors"),
        ("--run {folder} --weights w", "--weights does not go with --run"),
        ("--model pnasnet5_cifar --precision int8", "int8 needs images to calibrate on"),
        ("--model pnasnet5_cifar --image 0", "'0', allowed is a whole number from 1 to"),
        ("--model pnasnet5_cifar --data digits --image 9", "digits has (8, 8)"),
        ("--model pnasnet5_cifar --images {folder}/none", "no such file or folder"),
        ("--model pnasnet5_cifar --class-names {folder}/names", "1 lines, expected 10"),
        ("--model pnasnet5_cifar --weights {folder}/names", "names"),
        (f"{ANY_CELL} --filters 512 --classes 265000", "in fp32 it has 2.24 GB"),
        (f"{ANY_CELL} --filters 60000", "the network is too large"),
        (f"{ANY_CELL} --filters {10**30}", "allowed is a whole number from 1 to 65,536"),
        (f"{ANY_CELL} --filters 4 --classes {'9' * 400}", "9…', allowed is a whole number from 1 to"),
        (f"{ANY_CELL} --filters 4 --image 100000", "allowed is a whole number from 1 to 4,096"),
        (f"{ANY_CELL} --filters 4 --batch 100000", "allowed is a whole number from 1 to 4,096"),
        (f"{ANY_CELL} --filters 4 --image 4096 --batch 4096", "allowed are up to 21"),
        (f"{ANY_CELL} --filters 4 --output {{folder}}", "is no file, expected a file or a new name"),
        (f"{ANY_CELL} --filters 4 --output /dev/null", "is no file, expected a file or a new name"),
        ("--model pnasnet5_mobile --image 2", "pnasnet5_mobile: "),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names").write_text("one\n")
    given = ["--output", str(tmp_path / "m.onnx"), *arguments.format(folder=tmp_path).split()]
    try:
        status = main(given)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2, error
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["names"]


def test_an_output_without_a_folder_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--model", "pnasnet5_large", "--output", str(tmp_path / "none" / "m.onnx")])
    assert stop.value.code == 2
    assert "is not a folder that can be written to" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_remedy() -> None:
    with pytest.raises(ExportError, match=r"pnas_no_such_package .*pip install 'pnas_fast\[deploy\]'"):
        require("pnas_no_such_package")


@pytest.mark.parametrize("command", ["export", "infer"])
def test_commands_start_without_the_packages_of_the_extra(command: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('not here')")
    options = {"export": "--model pnasnet5_cifar --output m.onnx", "infer": "--model m.onnx --benchmark"}
    done = subprocess.run(
        [sys.executable, "-m", f"pnas_fast.{command}", *options[command].split()],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"python -m \S+: error: onnx\S* cannot be imported .*\[deploy\]'\n", done.stderr)
