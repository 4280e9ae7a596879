"""ONNX files that no export wrote, or that somebody changed: each is one line, and nothing else is said."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

from pnas_fast.export.image_format import ImageFormat
from pnas_fast.infer.__main__ import main

TITLE = "a stranger's"
FORMAT = {"channels": 3, "height": 8, "width": 8, "crop": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}

Shape = Sequence[int | str | None]


def model(
    *,
    images: Shape = ("batch", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    logits: Shape = ("batch", 3),
    logits_kind: int = TensorProto.FLOAT,
    last: Sequence[onnx.NodeProto] = (),
    preprocessing: str | None = None,
    classes: str | None = None,
    title: str = TITLE,
) -> ModelProto:
    """The means of three channels for logits, or what ``last`` makes of them, which is called features."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["average"]),
        helper.make_node("Flatten", ["average"], ["features"]),
        *(last or [helper.make_node("Identity", ["features"], ["logits"])]),
    ]
    body = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", kind, images)],
        [helper.make_tensor_value_info("logits", logits_kind, logits)],
        [numpy_helper.from_array(np.array([0, 1, 99]), "indices")],
    )
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = {"title": title, "precision": "fp32", "preprocessing": preprocessing or json.dumps(FORMAT)}
    helper.set_model_props(made, told | ({} if classes is None else {"classes": classes}))
    return made


def changed(**values: object) -> ModelProto:
    return model(preprocessing=json.dumps(FORMAT | values))


def with_another_input() -> ModelProto:
    made = model()
    made.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 3, 8, 8]))
    return made


def step(
    operator: str, *more: str, source: str = "features", to: str = "logits", **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(operator, [source, *more], [to], **attributes)


CASES: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "null": (lambda: model(preprocessing="null"), "not one of an export"),
    "text": (lambda: model(preprocessing='"x"'), "not one of an export"),
    "no text": (lambda: model(preprocessing="\x1b[2J\n"), "not one of an export"),
    "deep lists": (lambda: model(preprocessing="[" * 100_000), "not one of an export"),
    "deep values": (
        lambda: model(preprocessing='{"mean":' + "[" * 100_000 + "]" * 100_000 + "}"),
        "not one of an export",
    ),
    "deep objects": (lambda: model(preprocessing='{"a":' * 100_000), "not one of an export"),
    "height 0": (lambda: changed(height=0), "Expected `int` >= 1"),
    "height -5": (lambda: changed(height=-5), "Expected `int` >= 1"),
    "height 1.5": (lambda: changed(height=1.5), "Expected `int`, got `float`"),
    "height of 400 digits": (lambda: changed(width=10**400), "Expected `int` <= 4096"),
    "crop NaN": (lambda: changed(crop=float("nan")), "not one of an export"),
    "crop 0": (lambda: changed(crop=0), "Expected `float` >= 0.01"),
    "crop 2": (lambda: changed(crop=2), "Expected `float` <= 1.0"),
    "std 0": (lambda: changed(std=[0.5, 0, 0.5]), "Expected `float` >= 1e-06"),
    "a mean too few": (lambda: changed(mean=[0.5] * 2), "a mean and a std of each of its channels"),
    "mean of text": (lambda: changed(mean="xyz"), "Expected `array`, got `str`"),
    "another field": (lambda: changed(sides=3), "unknown field `sides`"),
    "another size": (lambda: changed(height=9), "takes images [3, 8, 8], its preprocessing says [3, 9, 8]"),
    "another layout": (lambda: model(kind=TensorProto.UINT8, last=()), "ONNX Runtime cannot load it"),
    "classes null": (lambda: model(classes="null"), "does not name its classes"),
    "classes of numbers": (lambda: model(classes="[1, 2, 3]"), "Expected `str`, got `int`"),
    "classes deep": (lambda: model(classes="[" * 100_000), "does not name its classes"),
    "fewer names": (lambda: model(classes='["a"]'), "names 1 classes, expected 3"),
    "any number of classes": (
        lambda: model(images=("batch", "colours", 8, 8), logits=("batch", "classes")),
        "classes, allowed are numbers of 1 or more",
    ),
    "integers": (
        lambda: model(
            logits_kind=TensorProto.INT64,
            last=[step("NonZero", to="places"), step("Transpose", source="places")],
        ),
        "output tensor(int64), allowed are",
    ),
    "not a number": (
        lambda: model(last=[step("Sub", "features", to="zero"), step("Div", "zero", source="zero")]),
        "are not finite numbers",
    ),
    "an operator that fails": (
        lambda: model(last=[step("Gather", "indices", axis=1)]),
        "ONNX Runtime cannot run it",
    ),
    "one row for all": (
        lambda: model(last=[step("ReduceMean", axes=[0], keepdims=1)]),
        "logits of shape (1, 3), the file says",
    ),
    "two inputs": (with_another_input, "expected a batch of images and logits"),
    "no batch": (lambda: model(images=(0, 3, 8, 8), logits=(0, 3)), "0 images at a time"),
    "a batch without end": (
        lambda: model(images=(10**9, 3, 8, 8), logits=(10**9, 3)),
        "batch of 1,000,000,000 images of 8×8, allowed are up to",
    ),
}


@pytest.fixture
def picture(tmp_path: Path) -> list[str]:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / name)
    return [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_each_is_one_line(
    name: str, timed: bool, picture: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, said = CASES[name]
    onnx.save(make(), tmp_path / "m.onnx")
    paths = ["--benchmark"] if timed else picture
    assert main([*paths, "--model", str(tmp_path / "m.onnx")]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert error.startswith(f"python -m pnas_fast.infer: error: {tmp_path}/m.onnx: ")
    assert error[:-1].isprintable()


def test_what_a_file_says_does_not_act_on_the_terminal(
    picture: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = json.dumps(["\x1b[31mred", "green\ngrass", "blue"])
    onnx.save(model(classes=names, title="\x1b[2J" + "long " * 1000), tmp_path / "m.onnx")
    assert main([picture[0], "--model", str(tmp_path / "m.onnx")]) == 0
    said = capsys.readouterr().out
    assert r"\x1b[31mred" in said
    assert r"green\ngrass" in said
    assert "\x1b" not in said
    assert len(said.splitlines()[0]) < 400


def test_what_an_export_writes_is_what_is_read() -> None:
    images = ImageFormat(3, 8, 8, 1.0, (0.5,) * 3, (0.5,) * 3)
    assert json.loads(images.to_json()) == FORMAT
    assert ImageFormat.from_json(images.to_json()) == images
