"""Our modules as nodes of a graph: there are few kinds, and each is written down here once."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from torch import Tensor, nn

from pnas_fast.export.graph import Array, Graph, Padding, Value
from pnas_fast.network import CellNetwork
from pnas_fast.network.cell import BlockModule, CellModule
from pnas_fast.network.layers import Convolution, FactorizedReduction, SeparableHalf
from pnas_fast.network.network import LONGEST_REACH
from pnas_fast.network.operations import Identity, MaxPool2x2, Pool, Skip, Stack
from pnas_fast.network.stem import StridedStem, ValidConvolution
from pnas_fast.space import CELL_INPUTS

_POOLS = {"avg": "AveragePool", "max": "MaxPool"}


def write_network(network: CellNetwork, graph: Graph, images: Value, logits: str) -> None:
    """Write everything from normalised images to logits, which are given that name.

    Names follow the modules': what ``cells.1.blocks.0`` gives is called that. Batch norms, with their running
    statistics, are part of the convolutions before them; dropout, drop-path and the auxiliary classifier
    belong to training and are left out.
    """
    states = _stem(network.stem, graph, images)
    for index, (cell, place) in enumerate(zip(network.cells, network.places, strict=True)):
        assert isinstance(cell, CellModule)
        output = _cell(cell, graph, states[-place.back :][0], states[-1], f"cells.{index}")
        states = [*states[1 - LONGEST_REACH :], output]
    last = graph.relu(states[-1]) if network.layout.final_rectify else states[-1]
    average = graph.node("GlobalAveragePool", [last.name], "average")
    features = graph.node("Flatten", [average], "features")
    classifier = network.classifier
    weight = np.zeros((classifier.out_features, last.shape.channels), np.float32)
    weight[:, last.places] = _array(classifier.weight)
    constants = [graph.constant("classifier.weight", weight)]
    if classifier.bias is not None:
        constants.append(graph.constant("classifier.bias", _array(classifier.bias)))
    graph.node("Gemm", [features, *constants], logits, transB=1)


def _stem(stem: nn.Module, graph: Graph, images: Value) -> list[Value]:
    if not isinstance(stem, StridedStem):
        return [_write(stem, graph, images, "stem")]
    first = _write(stem.first, graph, images, "stem.first")
    second = _write(stem.second, graph, first, "stem.second")
    return [second, _write(stem.third, graph, second, "stem.third")]


def _cell(cell: CellModule, graph: Graph, before: Value, previous: Value, name: str) -> Value:
    if cell.align_before is None:
        before = graph.in_order(before, f"{name}.before")
    else:
        before = _write(cell.align_before, graph, before, f"{name}.align_before")
    states = [before, _write(cell.align_previous, graph, previous, f"{name}.align_previous")]
    for index, module in enumerate(cell.blocks):
        assert isinstance(module, BlockModule)
        path, (left_input, right_input) = f"{name}.blocks.{index}", module.inputs
        left = _write(module.left, graph, states[left_input], f"{path}.left")
        right = _write(module.right, graph, states[right_input], f"{path}.right")
        states.append(graph.add(left, right, path))
    parts = []
    for state in cell.outputs:
        value = states[state]
        if state < CELL_INPUTS and str(state) in cell.align_outputs:
            value = _write(cell.align_outputs[str(state)], graph, value, f"{name}.align_outputs.{state}")
        parts.append(value)
    return graph.concat(parts, name)


@singledispatch
def _write(module: nn.Module, graph: Graph, x: Value, name: str) -> Value:
    """Write what a module makes of ``x``; ``name`` is that of the result, or the prefix of it."""
    raise TypeError(f"{name} is a {type(module).__name__}, which no rule writes as ONNX")


@_write.register
def _(module: Stack | nn.Sequential, graph: Graph, x: Value, name: str) -> Value:
    layers = module.layers if isinstance(module, Stack) else module
    for index, layer in enumerate(layers):
        x = _write(layer, graph, x, f"{name}.{index}")
    return x


@_write.register
def _(layer: Convolution, graph: Graph, x: Value, name: str) -> Value:
    weight, bias = _folded(_array(layer.weight), layer.norm)
    return graph.dense(graph.relu(x) if layer.rectify else x, name, weight, bias, strides=layer.stride)


@_write.register
def _(layer: ValidConvolution, graph: Graph, x: Value, name: str) -> Value:
    weight, bias = _folded(_array(layer.weight), layer.norm)
    return graph.dense(x, name, weight, bias, strides=(2, 2), padding=Padding())


@_write.register
def _(layer: SeparableHalf, graph: Graph, x: Value, name: str) -> Value:
    weight, bias = _folded(_array(layer.pointwise), layer.norm)
    filtered = graph.depthwise(
        graph.relu(x),
        f"{name}.depthwise",
        _array(layer.depthwise),
        stride=layer.stride,
        dilation=layer.dilation,
    )
    return graph.dense(filtered, name, weight, bias)


@_write.register
def _(layer: FactorizedReduction, graph: Graph, x: Value, name: str) -> Value:
    """The sum of two convolutions, of which each gives zeros for the other's half of the channels.

    A 2×2 depthwise kernel that is 1 at the bottom right takes the odd pixels, and from its padding the zeros
    past the edge. Runtimes fuse a convolution and an addition; a concatenation of halves would be a copy, and
    its channels no whole blocks.
    """
    x = graph.relu(x) if layer.rectify else x
    half = layer.even.shape[0]
    weight, bias = _folded(np.concatenate([_array(layer.even), _array(layer.odd)]), layer.norm)
    even, odd = weight.copy(), weight.copy()
    even[half:], odd[:half] = 0, 0
    corner = np.zeros((len(x.places), 1, 2, 2), np.float32)
    corner[:, :, 1, 1] = 1
    after = Padding(bottom=1, right=1)
    moved = graph.depthwise(x, f"{name}.moved", corner, stride=2, padding=after)
    left = graph.dense(x, f"{name}.even", even, bias, strides=(2, 2), padding=Padding())
    return graph.add(left, graph.dense(moved, f"{name}.odd", odd, None), name)


@_write.register
def _(module: Identity | Skip, graph: Graph, x: Value, name: str) -> Value:
    return x if module.project is None else _write(module.project, graph, x, name)


@_write.register
def _(module: Pool, graph: Graph, x: Value, name: str) -> Value:
    pooled = graph.pool(x, f"{name}.pool", _POOLS[module.kind], 3, module.stride)
    return pooled if module.project is None else _write(module.project, graph, pooled, name)


@_write.register
def _(module: MaxPool2x2, graph: Graph, x: Value, name: str) -> Value:
    pooled = graph.pool(x, f"{name}.pool", "MaxPool", 2, module.stride)
    return pooled if module.project is None else _write(module.project, graph, pooled, name)


def _folded(weight: Array, norm: nn.BatchNorm2d | None) -> tuple[Array, Array | None]:
    """A convolution's weight and bias with the batch norm after it folded in."""
    if norm is None:
        return weight, None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = _array(norm.running_mean).astype(float), _array(norm.running_var).astype(float)
    scale = _array(norm.weight) / np.sqrt(variance + norm.eps)
    return weight * scale[:, None, None, None].astype(np.float32), _array(norm.bias) - mean * scale


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array
