"""Exported files on images, by the command."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from exported_run import make_run
from pnas_fast.data import digits
from pnas_fast.export.exporting import export_model
from pnas_fast.export.model_file import Form
from pnas_fast.export.providers import PROVIDERS
from pnas_fast.export.sessions import open_session
from pnas_fast.export.subject import run_subject
from pnas_fast.infer.__main__ import main
from pnas_fast.infer.benchmark import time_session
from pnas_fast.infer.classifier import Classifier

IMAGES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and digits as image files whose names end in what they show."""
    folder = tmp_path_factory.mktemp("infer")
    run = make_run(folder / "run")
    export_model(run_subject(run), folder / "floats.onnx", Form())
    export_model(run_subject(run), folder / "bytes.onnx", Form("fp32", "uint8", 3))
    (folder / "images").mkdir()
    data = digits.load()
    for index in range(IMAGES):
        label = int(data.validation_labels[index])
        pixels = data.validation_images[index, 0].numpy()
        Image.fromarray(pixels).save(folder / "images" / f"{index:03}-{label}.png")
    return folder


@pytest.mark.parametrize("name", ["floats.onnx", "bytes.onnx"])
def test_images_are_named(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    model, images = folder / name, folder / "images"
    assert main([str(images), "--model", str(model), "--batch", "7", "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{model}: best of run, fp32, images of 8×8;")
    assert lines[1] == (
        f"provider: asked for auto, available {' '.join(onnxruntime.get_available_providers())}, "
        "runs on CPUExecutionProvider"
    )
    assert len(lines) == 2 + 4 * IMAGES
    right = 0
    for place in range(2, len(lines), 4):
        shares = [float(re.match(r" +([\d.]+)% ", line)[1]) for line in lines[place + 1 : place + 4]]
        assert shares == sorted(shares, reverse=True)
        right += Path(lines[place]).stem[-1] == lines[place + 1].split()[-1]
    assert right > 0.8 * IMAGES


def test_guesses_are_the_networks_probabilities(folder: Path) -> None:
    classifier = Classifier(open_session(folder / "bytes.onnx", "cpu", 1))
    paths = sorted((folder / "images").iterdir())[:5]
    network = run_subject(folder / "run").network.eval()
    data = digits.load()
    pixels = data.validation_images[:5]
    logits = network((pixels - data.mean[:, None, None]) / data.std[:, None, None])
    wanted = logits.softmax(1).detach().numpy()
    for place, (path, guesses) in enumerate(classifier.classify(paths, 2, 10)):
        assert path == paths[place]
        found = {guess.name: guess.probability for guess in guesses}
        np.testing.assert_allclose([found[str(digit)] for digit in range(10)], wanted[place], atol=1e-4)


def test_names_can_be_given(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names"
    names.write_text("\n".join(f"digit {digit}" for digit in range(10)))
    image = next((folder / "images").iterdir())
    model = str(folder / "floats.onnx")
    assert main([str(image), "--model", model, "--classes", str(names), "--top", "1"]) == 0
    assert re.search(r"%  digit \d$", capsys.readouterr().out.strip())


def test_one_bad_photo_does_not_hide_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((folder / "images").iterdir())[:5]
    for path in images:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "002-bad.png").write_bytes(images[0].read_bytes()[:60])
    (tmp_path / "004-worse.jpg").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\4IHDR\0\0\0\1")
    assert main([str(tmp_path), "--model", str(folder / "bytes.onnx"), "--top", "1", "--batch", "2"]) == 1
    out, errors = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("/")][1:] == [
        str(tmp_path / path.name) for path in images
    ]
    first, second, last = errors.splitlines()
    assert first.startswith(
        f"python -m pnas_fast.infer: error: {tmp_path}/002-bad.png: cannot be read as an image"
    )
    assert second.startswith(f"python -m pnas_fast.infer: error: {tmp_path}/004-worse.jpg: cannot be read")
    assert last == "python -m pnas_fast.infer: 2 of 7 files could not be read as images"


def test_where_no_photo_can_be_read_that_is_bad_input(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "a[1].png", tmp_path / "b.png"]
    for path in paths:
        path.touch()
    assert main([*map(str, paths), "--model", str(folder / "floats.onnx")]) == 2
    assert capsys.readouterr().err.endswith("2 of 2 files could not be read as images\n")


def test_paths_are_shown_as_typed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[bold]:smile: \x1b[31m.png"
    path.write_bytes(next((folder / "images").iterdir()).read_bytes())
    assert main([str(path), "--model", str(folder / "floats.onnx")]) == 0
    assert str(tmp_path) + "/[bold]:smile: \\x1b[31m.png" in capsys.readouterr().out.splitlines()


def test_a_byte_order_mark_is_no_part_of_a_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names").write_text("\n".join(f"digit {digit}" for digit in range(10)), encoding="utf-8-sig")
    image = next((folder / "images").iterdir())
    arguments = [str(image), "--model", str(folder / "floats.onnx"), "--classes", str(tmp_path / "names")]
    assert main(arguments) == 0
    assert re.search(r"%  digit 0$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("images", [True, False])
def test_the_benchmark_says_how_fast(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: bool
) -> None:
    monkeypatch.setattr("pnas_fast.infer.benchmark.LEAST_SECONDS", 0.0)
    paths = [str(folder / "images")] if images else []
    assert main([*paths, "--model", str(folder / "floats.onnx"), "--benchmark", "--batch", "4"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    latencies = ", ".join(rf"[\d.]+ ms \({share} %\)" for share in (50, 90, 99))
    assert re.fullmatch(rf"[\d,.]+ images/s; 20 batches of 4, within {latencies}", last)


def test_times_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pnas_fast.infer.benchmark.LEAST_SECONDS", 0.0)
    classifier = Classifier(open_session(folder / "floats.onnx", "cpu", 1))
    found = time_session(classifier.session, classifier.noise(2))
    assert (found.batch, found.runs) == (2, 20)
    assert 0 < found.percentiles[0] <= found.percentiles[1] <= found.percentiles[2]
    assert found.images_per_second >= 2 / found.percentiles[2]


def test_a_provider_that_falls_back_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where CUDA is in the package, but no driver on the machine."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", _only_cpu(onnxruntime.InferenceSession, asked := []))
    with pytest.raises(ValueError, match=r"provider cuda did not start .* fell back to CPUExecutionProvider"):
        open_session(folder / "floats.onnx", "cuda")
    session = open_session(folder / "floats.onnx", "auto")
    assert (session.asked, session.got) == ("auto", ("CPUExecutionProvider",))
    with pytest.raises(ValueError, match="tensorrt did not start"):
        open_session(folder / "floats.onnx", "tensorrt")
    cuda, cpu, tensorrt = PROVIDERS["cuda"], PROVIDERS["cpu"], PROVIDERS["tensorrt"]
    assert asked == [[cuda, cpu], [cuda, cpu], [tensorrt, cuda, cpu]]


def _only_cpu(real: object, asked: list[list[str]]) -> object:
    def session(path: Path, options: object, providers: list[str]) -> object:
        asked.append(providers)
        return real(path, options, providers=[PROVIDERS["cpu"]])

    return session


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--model {folder}/floats.onnx", "no image: allowed are images, folders of them, or --benchmark"),
        ("--model {folder}/none.onnx --benchmark", "none.onnx: no such file"),
        ("--model {folder}/run/config.json --benchmark", "ONNX Runtime cannot load it"),
        ("--model {folder}/foreign.onnx --benchmark", "does not say its title, precision, preprocessing"),
        ("--model {folder}/unnamed.onnx --benchmark", "unnamed.onnx: names 2 classes, expected 10"),
        ("--model {folder}/floats.onnx {folder}/run", "holds no image"),
        ("--model {folder}/floats.onnx {folder}/run/config.json", "cannot be read as an image"),
        (
            "--model {folder}/floats.onnx --benchmark --provider cuda",
            "has no CUDAExecutionProvider, available",
        ),
        ("--model {folder}/floats.onnx --benchmark --batch 0", "allowed is a whole number from 1 to"),
        ("--model {folder}/floats.onnx --benchmark --classes {folder}/run/config.json", "expected 10"),
        (
            "--model {folder}/floats.onnx --benchmark --classes /dev/zero",
            "it is a device, expected a regular",
        ),
        ("--model {folder}/floats.onnx --benchmark --classes {folder}/floats.onnx", "cannot be read as text"),
        ("--model {folder} --benchmark", "no such file, expected an ONNX model"),
        ("--model {folder}/floats.onnx --benchmark --threads 100000", "'100000', allowed is a whole number"),
        (
            "--model {folder}/floats.onnx --benchmark --batch 100000",
            "allowed is a whole number from 1 to 4,096",
        ),
        (
            f"--model {{folder}}/floats.onnx --benchmark --top {'9' * 5000}",
            "9…', allowed is a whole number from",
        ),
        ("--model {folder}/floats.onnx --benchmark --top ٣", "allowed is a whole number from 1 to"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    said: str,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    model = onnx.load(folder / "floats.onnx")
    next(entry for entry in model.metadata_props if entry.key == "classes").value = '["a", "b"]'
    onnx.save(model, folder / "unnamed.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "foreign.onnx")
    try:
        status = main(arguments.format(folder=folder).split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2, error
    assert said in error
    assert error.count("\n") == 1
