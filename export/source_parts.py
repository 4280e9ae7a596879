"""The parts of an exported source file that are the same in every one that needs them."""

from __future__ import annotations

IMPORTS = """\
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
"""

PREPARE = '''\
def normalised(pixels: Tensor) -> Tensor:
    """Pixels 0 to 255, (batch, H, W, C), as (batch, C, H, W), normalised."""
    levels = pixels.permute(0, 3, 1, 2).float()
    mean = torch.tensor(MEAN, device=levels.device).view(-1, 1, 1)
    std = torch.tensor(STD, device=levels.device).view(-1, 1, 1)
    return (levels - 255 * mean) / (255 * std)
'''

PADDED = '''\
def padded(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: int = 1,
) -> Tensor:
    """Zeros around a map, for an output of ceil(size / stride): the odd one after it."""
    sides: list[int] = []
    for axis in (1, 0):
        size = x.shape[2 + axis]
        reach = (kernel[axis] - 1) * dilation + 1
        total = max((-(-size // stride[axis]) - 1) * stride[axis] + reach - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)
'''

LAYERS = {
    "Convolution": '''\
class Convolution(nn.Module):
    """ReLU unless told not to, convolution with SAME padding, batch norm unless not."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        rectify: bool = True,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.rectify = kernel, stride, rectify
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))
        self.norm = batch_norm(outputs) if normalise else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = padded(F.relu(x) if self.rectify else x, self.kernel, self.stride)
        output: Tensor = self.norm(F.conv2d(x, self.weight, stride=self.stride))
        return output
''',
    "ValidConvolution": '''\
class ValidConvolution(nn.Module):
    """3×3 convolution of stride 2 without padding, batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.norm = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(F.conv2d(x, self.weight, stride=2))
        return output
''',
    "SeparableHalf": '''\
class SeparableHalf(nn.Module):
    """ReLU, depthwise convolution with SAME padding, 1×1 convolution, batch norm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.depthwise = nn.Parameter(torch.empty(inputs, 1, kernel, kernel))
        self.pointwise = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.norm = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = (self.kernel, self.kernel), (self.stride, self.stride)
        x = padded(F.relu(x), kernel, stride, self.dilation)
        x = F.conv2d(
            x,
            self.depthwise,
            stride=stride,
            dilation=self.dilation,
            groups=x.shape[1],
        )
        output: Tensor = self.norm(F.conv2d(x, self.pointwise))
        return output
''',
    "FactorizedReduction": '''\
class FactorizedReduction(nn.Module):
    """ReLU unless told not to, two 1×1 convolutions of stride 2, batch norm.

    The second reads the pixels right below those of the first; past the edge are zeros.
    """

    def __init__(self, inputs: int, outputs: int, *, rectify: bool = True) -> None:
        super().__init__()
        self.rectify = rectify
        self.even = nn.Parameter(torch.empty(outputs // 2, inputs, 1, 1))
        self.odd = nn.Parameter(torch.empty(outputs - outputs // 2, inputs, 1, 1))
        self.norm = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x) if self.rectify else x
        even = F.conv2d(x, self.even, stride=2)
        odd = F.conv2d(F.pad(x, (-1, 1, -1, 1)), self.odd, stride=2)
        output: Tensor = self.norm(torch.cat([even, odd], dim=1))
        return output
''',
    "AveragePool": '''\
class AveragePool(nn.Module):
    """3×3 average with SAME padding, of the pixels that there are."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # An even side of stride 2 is padded after the edge alone: by the last window.
        padding = [1 if self.stride == 1 or size % 2 else 0 for size in x.shape[2:]]
        return F.avg_pool2d(x, 3, self.stride, padding, True, count_include_pad=False)
''',
    "MaxPool": '''\
class MaxPool(nn.Module):
    """3×3 maximum with SAME padding."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # An even side of stride 2 is padded after the edge alone: by the last window.
        padding = [1 if self.stride == 1 or size % 2 else 0 for size in x.shape[2:]]
        return F.max_pool2d(x, 3, self.stride, padding, ceil_mode=True)
''',
    "MaxPool2x2": '''\
class MaxPool2x2(nn.Module):
    """2×2 maximum, padded after the edge."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x = F.pad(x, (0, 1, 0, 1), value=float("-inf"))
        return F.max_pool2d(x, 2, self.stride, ceil_mode=self.stride == 2)
''',
}
"""Classes by name, in the order in which a file has those that it needs."""

LOAD = '''\
def load(weights: Path | str = WEIGHTS) -> Network:
    """The network with the weights of a safetensors file, in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(weights))
    return network.eval()
'''
