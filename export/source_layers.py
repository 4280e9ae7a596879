"""Our modules as layers of an exported source file: there are few kinds, each is written down here once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from torch import nn

from pnas_fast.network.layers import Convolution, FactorizedReduction, SeparableHalf
from pnas_fast.network.operations import Identity, MaxPool2x2, Pool, Skip, Stack
from pnas_fast.network.stem import ValidConvolution

_POOLS = {"avg": "AveragePool", "max": "MaxPool"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the text.

    Attributes:
        name: of its class.
        arguments: that build it.
        module: whose weights it has; None where there are none.
    """

    name: str
    arguments: list[str]
    module: nn.Module | None = None


@dataclass(frozen=True, slots=True)
class Channels:
    """How numbers of channels are written: ``source`` is what a layer reads, ``filters`` the cell's."""

    source: str
    filters: int

    def outputs(self, count: int, inputs: int) -> str:
        """Of a layer with so many outputs and inputs."""
        if count == self.filters:
            return "filters"
        if count == inputs:
            return self.source
        return "filters // 4" if count == self.filters // 4 else str(count)


@singledispatch
def layers_of(module: nn.Module, channels: Channels) -> list[Layer]:
    """The layers that do what a module does, one after the other; none where it does nothing."""
    raise TypeError(f"{type(module).__name__}: no rule writes it as source")


@layers_of.register
def _(module: Stack | nn.Sequential, channels: Channels) -> list[Layer]:
    found: list[Layer] = []
    for part in module.layers if isinstance(module, Stack) else module:
        found += layers_of(part, channels)
        channels = Channels(found[-1].arguments[1], channels.filters)
    return found


@layers_of.register
def _(layer: Convolution, channels: Channels) -> list[Layer]:
    outputs, inputs, *kernel = layer.weight.shape
    arguments = [channels.source, channels.outputs(outputs, inputs)]
    if kernel != [1, 1]:
        arguments.append(f"kernel=({kernel[0]}, {kernel[1]})")
    if layer.stride != (1, 1):
        arguments.append(f"stride=({layer.stride[0]}, {layer.stride[1]})")
    if not layer.rectify:
        arguments.append("rectify=False")
    if layer.norm is None:
        arguments.append("normalise=False")
    return [Layer("Convolution", arguments, layer)]


@layers_of.register
def _(layer: ValidConvolution, channels: Channels) -> list[Layer]:
    outputs, inputs = layer.weight.shape[:2]
    return [Layer("ValidConvolution", [channels.source, channels.outputs(outputs, inputs)], layer)]


@layers_of.register
def _(layer: SeparableHalf, channels: Channels) -> list[Layer]:
    outputs, inputs = layer.pointwise.shape[:2]
    arguments = [channels.source, channels.outputs(outputs, inputs), f"kernel={layer.depthwise.shape[-1]}"]
    if layer.stride != 1:
        arguments.append(f"stride={layer.stride}")
    if layer.dilation != 1:
        arguments.append(f"dilation={layer.dilation}")
    return [Layer("SeparableHalf", arguments, layer)]


@layers_of.register
def _(layer: FactorizedReduction, channels: Channels) -> list[Layer]:
    arguments = [channels.source, channels.outputs(layer.shape.channels, layer.even.shape[1])]
    return [Layer("FactorizedReduction", [*arguments, *([] if layer.rectify else ["rectify=False"])], layer)]


@layers_of.register
def _(module: Identity | Skip, channels: Channels) -> list[Layer]:
    return [] if module.project is None else layers_of(module.project, channels)


@layers_of.register
def _(module: Pool | MaxPool2x2, channels: Channels) -> list[Layer]:
    name = _POOLS[module.kind] if isinstance(module, Pool) else "MaxPool2x2"
    pool = Layer(name, [] if module.stride == 1 else [f"stride={module.stride}"])
    return [pool] if module.project is None else [pool, *layers_of(module.project, channels)]
