"""PNASNet-5 written down plainly with timm's parameter names: the oracle of released files.

See docs/method.md, 3 and 5.1. Knows nothing of `pnas_fast`. Checked by hand against timm 1.0.31's
pnasnet5large: the same 1,380 names and shapes, and the same logits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-3


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    around = []
    for size in (x.shape[3], x.shape[2]):
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        around += [missing // 2, missing - missing // 2]
    return F.pad(x, around, value=value)


class Conv(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class Projection(nn.Module):
    """1×1 and batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, stride=stride)
        self.bn = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


class Path(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs)


class Halving(nn.Module):
    """Every second pixel, and every second pixel of the image moved by one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.path_1 = Path(inputs, outputs // 2)
        self.path_2 = Path(inputs, outputs - outputs // 2)
        self.final_path_bn = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.zeros_like(x)
        moved[:, :, :-1, :-1] = x[:, :, 1:, 1:]
        halves = [self.path_1.conv(x[:, :, ::2, ::2]), self.path_2.conv(moved[:, :, ::2, ::2])]
        out: Tensor = self.final_path_bn(torch.cat(halves, 1))
        return out


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.depthwise_conv2d = Conv(inputs, inputs, kernel, stride, groups=inputs)
        self.pointwise_conv2d = Conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise_conv2d(self.depthwise_conv2d(x))
        return out


class Twice(nn.Module):
    """A separable convolution, two times."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.separable_1 = Separable(inputs, outputs, kernel, stride)
        self.bn_sep_1 = norm(outputs)
        self.separable_2 = Separable(outputs, outputs, kernel, 1)
        self.bn_sep_2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_sep_1(self.separable_1(F.relu(x)))
        out: Tensor = self.bn_sep_2(self.separable_2(F.relu(x)))
        return out


class ReferenceCell(nn.Module):
    """``left_shape`` is (channels, whether the map is twice as large) of H[c-2]; None is the raw input."""

    def __init__(self, left: tuple[int, bool] | None, right: int, filters: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv_prev_1x1: nn.Module | None = None
        if left is not None:
            self.conv_prev_1x1 = (Halving if left[1] else Projection)(left[0], filters)
        self.conv_1x1 = Projection(right, filters)
        source = right if left is None else filters
        self.comb_iter_0_left = Twice(source, filters, 5, stride)
        self.comb_iter_0_right = Projection(source, filters) if source != filters else None
        self.comb_iter_1_left = Twice(filters, filters, 7, stride)
        self.comb_iter_2_left = Twice(filters, filters, 5, stride)
        self.comb_iter_2_right = Twice(filters, filters, 3, stride)
        self.comb_iter_3_left = Twice(filters, filters, 3, 1)
        self.comb_iter_4_left = Twice(source, filters, 3, stride)
        self.comb_iter_4_right = Projection(filters, filters, stride) if stride > 1 else None

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, 3, self.stride, float("-inf")), 3, self.stride)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if self.conv_prev_1x1 is not None:
            left = self.conv_prev_1x1(F.relu(left))
        right = self.conv_1x1(F.relu(right))
        pooled = self.pool(left)
        if self.comb_iter_0_right is not None:
            pooled = self.comb_iter_0_right(pooled)
        zero = self.comb_iter_0_left(left) + pooled
        one = self.comb_iter_1_left(right) + self.pool(right)
        two = self.comb_iter_2_left(right) + self.comb_iter_2_right(right)
        three = self.comb_iter_3_left(two) + self.pool(right)
        kept = right if self.comb_iter_4_right is None else self.comb_iter_4_right(F.relu(right))
        four = self.comb_iter_4_left(left) + kept
        return torch.cat([zero, one, two, three, four], 1)


class Stem(nn.Module):
    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, filters, 3, 2, bias=False)
        self.bn = norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


class ReferencePNASNet(nn.Module):
    """``repeats``, ``filters`` and ``stem`` are 4, 216, 96 for the large network and 3, 54, 32 for mobile."""

    def __init__(self, repeats: int, filters: int, stem: int, classes: int) -> None:
        super().__init__()
        self.conv_0 = Stem(stem)
        self.cell_stem_0 = ReferenceCell(None, stem, filters // 4, 2)
        self.cell_stem_1 = ReferenceCell((stem, True), 5 * (filters // 4), filters // 2, 2)
        before, previous, halved = 5 * (filters // 4), 5 * (filters // 2), True
        self.names = []
        for index in range(3 * repeats):
            stride = 2 if index in (repeats, 2 * repeats) else 1
            filters *= stride
            self.names.append(f"cell_{index}")
            self.add_module(self.names[-1], ReferenceCell((before, halved), previous, filters, stride))
            before, previous, halved = previous, 5 * filters, stride == 2
        self.last_linear = nn.Linear(previous, classes)

    def forward(self, x: Tensor) -> Tensor:
        before = self.conv_0(x)
        previous = self.cell_stem_0(before, before)
        before, previous = previous, self.cell_stem_1(before, previous)
        for name in self.names:
            before, previous = previous, self.get_submodule(name)(before, previous)
        logits: Tensor = self.last_linear(F.relu(previous).mean((2, 3)))
        return logits


def perturb(network: nn.Module, seed: int = 0) -> None:
    """Batch norms as after some training: every scale, shift and statistic its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
