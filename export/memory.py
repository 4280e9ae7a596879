"""How much memory a model's activations take while it runs."""

from __future__ import annotations

from collections import Counter
from math import prod

from onnx import ModelProto, shape_inference

from pnas_fast.export.errors import ExportError

BYTES = 4
"""Of a value: activations are float32."""

_OVERWRITES = ("Relu", "Add", "Flatten")
"""Operators whose result may take the place of an operand of its size that nobody reads later."""


def peak_activations(model: ModelProto) -> int:
    """The most bytes that activations take at once, of a float32 model for a fixed batch.

    Its nodes run in the file's order. A result gets its memory as its node begins, and gives it back when the
    last node that reads it is done, or at once where none does; the images are a result, too. Relu, Add and
    Flatten write over an operand of their size that is read no more. Weights and what a kernel needs
    for itself are not counted.

    Raises:
        ExportError: a model whose shapes are not fixed.
    """
    sizes = _sizes(model)
    constants = {constant.name for constant in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in set(node.input) - constants)
    readers.update(value.name for value in model.graph.output)
    live = {value.name for value in model.graph.input}
    peak = sum(sizes[name] for name in live)
    for node in model.graph.node:
        operands = set(node.input) - constants
        readers.subtract(operands)
        done = {name for name in operands if readers[name] == 0}
        (result,) = node.output
        overwrites = node.op_type in _OVERWRITES and any(sizes[name] == sizes[result] for name in done)
        now = sum(sizes[name] for name in live) + (0 if overwrites else sizes[result])
        peak = max(peak, now)
        live -= done
        if readers[result]:
            live.add(result)
    return peak


def _sizes(model: ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model).graph
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        if min(shape) < 1:
            raise ExportError(f"{value.name} has no fixed shape, expected a model for a fixed batch")
        sizes[value.name] = BYTES * prod(shape)
    return sizes
