"""Nodes of an ONNX graph, written one after the other through the ``onnx`` package's helpers.

What is written is what runtimes run best without rewriting it: padding is an attribute of the convolution or
pool that needs it, a value is rectified once however many read it, and channels come in whole vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pnas_fast.export.errors import ExportError
from pnas_fast.kernels.eager import same_padding
from pnas_fast.network.layers import Shape

Array = npt.NDArray[Any]

CHANNEL_BLOCK = 16
"""Convolutions give a multiple of so many channels, the rest of them zero.

ONNX Runtime keeps activations in blocks of 8 or 16 channels, one or two vectors, for as long as every
channel count is a multiple of that; where one is not, it reorders them and takes slow depthwise kernels.
"""

LARGEST_FILE = 2**31 - 2**20
"""Bytes of constants in a file: ONNX's format ends at 2 GiB, and there are nodes too."""

LARGEST_HALF = int(np.finfo(np.float16).max)
"""Beyond it numbers of float16 are infinite."""

TOO_LARGE = f"the network is too large: an ONNX file holds up to {LARGEST_FILE / 1e9:.2f} GB of weights"


class Value(NamedTuple):
    """A tensor of the graph.

    Attributes:
        name: in the graph.
        shape: of one image's part, with the channels that only fill blocks.
        places: int (C,), which of the channels are the network's; all others are zero.
    """

    name: str
    shape: Shape
    places: npt.NDArray[np.intp]


class Padding(NamedTuple):
    """Pixels around a map, in the order of ONNX's ``pads``."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @classmethod
    def same(cls, source: Shape, kernel: Sequence[int], strides: Sequence[int], dilation: int = 1) -> Padding:
        """TensorFlow's SAME: the output has ceil(size / stride) pixels, an odd pixel comes after."""
        (top, bottom), (left, right) = (
            same_padding(size, reach, stride, dilation)
            for size, reach, stride in zip(source[1:], kernel, strides, strict=True)
        )
        return cls(top, left, bottom, right)

    def result(
        self, source: Shape, channels: int, kernel: Sequence[int], strides: Sequence[int], dilation: int = 1
    ) -> Shape:
        """The shape of a convolution or pool with this padding."""
        height = source.height + self.top + self.bottom - (kernel[0] - 1) * dilation - 1
        width = source.width + self.left + self.right - (kernel[1] - 1) * dilation - 1
        return Shape(channels, height // strides[0] + 1, width // strides[1] + 1)


class Graph:
    """A graph under construction.

    Args:
        dtype: of all constants, float32 or float16.
        most: bytes that constants may take in all.

    Attributes:
        nodes: in the order in which they run.
        constants: initializers.
    """

    def __init__(self, dtype: npt.DTypeLike = np.float32, most: int = LARGEST_FILE) -> None:
        self.dtype = np.dtype(dtype)
        self._left = most
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._rectified: dict[str, Value] = {}

    def constant(self, name: str, values: Array) -> str:
        """Add an initializer of the graph's dtype; its name.

        Raises:
            ExportError: a weight that the dtype cannot hold, or constants that are too large in all.
        """
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(values, self.dtype)
        if self.dtype == np.float16 and not np.isfinite(array).all() and np.isfinite(values).all():
            largest = float(np.abs(values).max())
            raise ExportError(
                f"{name} has a weight of {largest:g}, allowed in fp16 are up to {LARGEST_HALF:,}"
            )
        self._left -= array.nbytes
        if self._left < 0:
            raise ExportError(TOO_LARGE)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, after which it is named; the name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def relu(self, x: Value) -> Value:
        """max(x, 0), by one node for everyone who asks."""
        if x.name not in self._rectified:
            self._rectified[x.name] = x._replace(name=self.node("Relu", [x.name], rectified_name(x.name)))
        return self._rectified[x.name]

    def dense(
        self,
        x: Value,
        name: str,
        weight: Array,
        bias: Array | None,
        *,
        strides: Sequence[int] = (1, 1),
        padding: Padding | None = None,
    ) -> Value:
        """A convolution that mixes all channels.

        Args:
            x: what it reads.
            name: of its output, and the prefix of its constants.
            weight: (F, C, kh, kw), C and F without those that fill blocks.
            bias: (F,).
            strides: along (H, W).
            padding: None is SAME.
        """
        filters, _, *kernel = weight.shape
        channels = -(-filters // CHANNEL_BLOCK) * CHANNEL_BLOCK
        whole = np.zeros((channels, x.shape.channels, *kernel), weight.dtype)
        whole[:filters, x.places] = weight
        constants = {"weight": whole}
        if bias is not None:
            constants["bias"] = np.pad(bias, (0, channels - filters))
        padding = Padding.same(x.shape, kernel, strides) if padding is None else padding
        self._convolution(x, name, constants, strides=strides, pads=padding)
        shape = padding.result(x.shape, channels, kernel, strides)
        return Value(name, shape, np.arange(filters))

    def in_order(self, x: Value, name: str) -> Value:
        """The same with the network's channels first, as `dense` gives them, so that both can be added.

        A concatenation has channels that fill blocks in between. A 1×1 convolution moves the others together:
        runtimes have fast ones, and none for picking channels.
        """
        count = len(x.places)
        if x.shape.channels - count < CHANNEL_BLOCK and (x.places == np.arange(count)).all():
            return x
        return self.dense(x, name, np.eye(count, dtype=np.float32)[:, :, None, None], None)

    def depthwise(
        self,
        x: Value,
        name: str,
        weight: Array,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding | None = None,
    ) -> Value:
        """A convolution of each channel for itself.

        Args:
            x: what it reads.
            name: of its output, and the prefix of its weight's name.
            weight: (C, 1, kh, kw), C without those that fill blocks.
            stride: along both axes.
            dilation: along both axes.
            padding: None is SAME.
        """
        channels, kernel, strides = x.shape.channels, weight.shape[2:], (stride, stride)
        whole = np.zeros((channels, 1, *kernel), weight.dtype)
        whole[x.places] = weight
        padding = Padding.same(x.shape, kernel, strides, dilation) if padding is None else padding
        dilations = (dilation, dilation)
        self._convolution(
            x, name, {"weight": whole}, strides=strides, pads=padding, dilations=dilations, group=channels
        )
        return x._replace(name=name, shape=padding.result(x.shape, channels, kernel, strides, dilation))

    def _convolution(self, x: Value, name: str, constants: dict[str, Array], **attributes: Any) -> None:
        kernel = constants["weight"].shape[2:]
        inputs = [self.constant(f"{name}.{part}", values) for part, values in constants.items()]
        self.node("Conv", [x.name, *inputs], name, kernel_shape=kernel, **attributes)

    def pool(self, x: Value, name: str, operator: str, kernel: int, stride: int) -> Value:
        """MaxPool or AveragePool, SAME-padded, over the pixels inside the map."""
        sizes, strides = (kernel, kernel), (stride, stride)
        padding = Padding.same(x.shape, sizes, strides)
        extra = {"count_include_pad": 0} if operator == "AveragePool" else {}
        self.node(operator, [x.name], name, kernel_shape=sizes, strides=strides, pads=padding, **extra)
        return x._replace(name=name, shape=padding.result(x.shape, x.shape.channels, sizes, strides))

    def add(self, left: Value, right: Value, name: str) -> Value:
        """The sum of two values of one shape."""
        return left._replace(name=self.node("Add", [left.name, right.name], name))

    def concat(self, parts: Sequence[Value], name: str) -> Value:
        """Values one after the other along the channels."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0] + [part.shape.channels for part in parts])
        places = [part.places + start for part, start in zip(parts, starts, strict=False)]
        self.node("Concat", [part.name for part in parts], name, axis=1)
        shape = parts[0].shape._replace(channels=int(starts[-1]))
        return Value(name, shape, np.concatenate(places))


def rectified_name(name: str) -> str:
    """What a value is called once it is rectified."""
    return f"{name}/relu"


def rectify_parts(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Put the ReLU of a concatenation that nothing else reads before it, on each of its parts.

    There a runtime makes it part of the addition or convolution that gives the part, and a part that is read
    rectified elsewhere is rectified once. The result has the same values.
    """
    readers = Counter(name for node in nodes for name in node.input)
    concats = {node.output[0]: node for node in nodes if node.op_type == "Concat"}
    moved = {
        node.input[0]: node
        for node in nodes
        if node.op_type == "Relu" and node.input[0] in concats and readers[node.input[0]] == 1
    }
    result: dict[str, NodeProto] = {}
    for node in nodes:
        (output,) = node.output
        if output in moved:
            names = [rectified_name(part) for part in node.input]
            for part, name in zip(node.input, names, strict=True):
                if name not in result:
                    result[name] = helper.make_node("Relu", [part], [name], name)
            (output,) = moved[output].output
            result[output] = helper.make_node("Concat", names, [output], node.name, axis=1)
        elif output not in result:  # a ReLU may already stand before a concatenation
            result[output] = node
    return list(result.values())
