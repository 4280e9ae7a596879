"""An ONNX file of a network: its graph, its input's form, and what it says about itself."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pnas_fast.export.errors import ExportError
from pnas_fast.export.graph import LARGEST_FILE, TOO_LARGE, Graph, Value, rectify_parts
from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.walk import write_network
from pnas_fast.network import CellNetwork
from pnas_fast.network.layers import Shape
from pnas_fast.version import VERSION

Precision = Literal["fp32", "fp16", "int8"]
InputType = Literal["float32", "uint8"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
"""A weight's in a file."""

_COPIES = 4
"""Of float32 weights that are in memory at once where int8 is made from more than a file holds."""

_PLAIN_COPIES = 3
"""Of weights that are in memory at once where a file of another format is written and checked."""

OPSET = 17
"""The operator set: the newest that ONNX Runtime 1.12 and TensorRT 8.5, of 2022, read; nothing later is
needed, for convolutions, pools and quantised nodes are older."""

IR_VERSION = 8
"""The file format that came with that operator set."""

IMAGES, LOGITS = "images", "logits"
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Form:
    """How a network is written.

    Attributes:
        precision: of weights and arithmetic.
        input: ``float32`` is (batch, C, H, W), resized and normalised by whoever asks; ``uint8`` is
            (batch, H, W, C) as an image decoder gives it, resized: normalisation is part of the graph.
        batch: images at a time; None is any number.
    """

    precision: Precision = "fp32"
    input: InputType = "float32"
    batch: int | None = None


def build(network: CellNetwork, images: ImageFormat, form: Form) -> ModelProto:
    """The model of a network for any batch, in float32 or float16; int8 is made from float32 (`quantise`).

    Raises:
        ExportError: weights that are too many for a file, or too large for float16.
    """
    dtype = np.float16 if form.precision == "fp16" else np.float32
    # What int8 is made from may be larger than a file: it is written in parts.
    graph = Graph(dtype, LARGEST_FILE * (np.dtype(dtype).itemsize // BYTES[form.precision]))
    normalised = _input(graph, images, form)
    if form.precision == "fp16":
        write_network(network, graph, normalised, "classifier")
        graph.node("Cast", ["classifier"], LOGITS, to=TensorProto.FLOAT)
    else:
        write_network(network, graph, normalised, LOGITS)
    if form.input == "uint8":
        kind = TensorProto.UINT8
        shape: list[str | int | None] = [BATCH, images.height, images.width, images.channels]
    else:
        kind = TensorProto.FLOAT
        shape = [BATCH, *images.shape]
    classes = network.classifier.out_features
    body = helper.make_graph(
        rectify_parts(graph.nodes),
        "network",
        [helper.make_tensor_value_info(IMAGES, kind, shape)],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [BATCH, classes])],
        graph.constants,
    )
    return helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pnas_fast",
        producer_version=VERSION,
    )


def _input(graph: Graph, images: ImageFormat, form: Form) -> Value:
    """From the file's input to normalised images of the graph's dtype."""
    name = IMAGES
    if form.input == "uint8":
        name = graph.node("Transpose", [name], "pixels", perm=(0, 3, 1, 2))
        name = graph.node("Cast", [name], "levels", to=TensorProto.FLOAT)
        for operator, output, values in (("Sub", "centred", images.mean), ("Div", "normalised", images.std)):
            levels = np.asarray(values, np.float32).reshape(-1, 1, 1) * np.float32(255)
            graph.constants.append(numpy_helper.from_array(levels, f"{output}.by"))
            name = graph.node(operator, [name, f"{output}.by"], output)
    if graph.dtype == np.float16:
        name = graph.node("Cast", [name], "halves", to=TensorProto.FLOAT16)
    return Value(name, Shape(*images.shape), np.arange(images.channels))


def check_size(network: CellNetwork, precision: Precision | None) -> None:
    """Raise `ExportError` where a network has too many weights for a file, or for the way to it.

    Args:
        network: may be on PyTorch's device meta, without any weight in memory.
        precision: of an ONNX file; None is a file of another format, of any size.
    """
    weights = sum(parameter.numel() for parameter in network.parameters() if parameter.ndim > 1)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if precision is None:
        if (needed := _PLAIN_COPIES * BYTES["fp32"] * weights) > memory:
            raise ExportError(
                f"the network is too large: {weights:,} weights and their copies need {needed / 1e9:,.0f} GB "
                f"of memory, this machine has {memory / 1e9:,.0f}"
            )
        return
    if weights * BYTES[precision] > LARGEST_FILE:
        raise ExportError(f"{TOO_LARGE}, in {precision} it has {weights * BYTES[precision] / 1e9:,.2f} GB")
    needed = _COPIES * BYTES["fp32"] * weights
    if precision == "int8" and BYTES["fp32"] * weights > LARGEST_FILE and needed > memory:
        raise ExportError(
            f"the network is too large: making int8 from {weights:,} weights needs about {needed / 1e9:,.0f} "
            f"GB of memory, this machine has {memory / 1e9:,.0f}"
        )


def size_of_constants(model: ModelProto) -> int:
    """Bytes of a model's constants."""
    return sum(len(constant.raw_data) for constant in model.graph.initializer)


def fix_batch(model: ModelProto, batch: int) -> None:
    """Let a model take so many images at a time and no others."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch


def description(
    network: CellNetwork,
    images: ImageFormat,
    form: Form,
    *,
    title: str,
    class_names: list[str] | None,
    accuracy: dict[str, object] | None,
) -> dict[str, str]:
    """What a file says about itself.

    Args:
        network: what it was made from.
        images: what it takes.
        form: how it was written.
        title: the network's name, for people.
        class_names: of the outputs in order; None where nobody knows.
        accuracy: measured, and on what; None where it was not.
    """
    normal, reduction = str(network.genotype.normal), str(network.genotype.reduction)
    entries = {
        "title": title,
        "cell": normal,
        "preprocessing": images.to_json(),
        "input": form.input,
        "precision": form.precision,
        "parameters": str(network.parameters_count),
        "multiply_adds": str(network.multiply_adds),
    }
    if reduction != normal:
        entries["reduction_cell"] = reduction
    if class_names is not None:
        entries["classes"] = json.dumps(class_names)
    if accuracy is not None:
        entries["accuracy"] = json.dumps(accuracy)
    return entries
