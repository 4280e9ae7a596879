"""How tensors lie in memory, as kernels are told."""

from __future__ import annotations

from torch import Tensor


def pixel(x: Tensor) -> int:
    """Elements from a pixel of an (N, C, H, W) tensor in NHWC memory to the next; C where it has but one."""
    # The stride of a dimension of size 1 says nothing.
    images, channels, height, width = x.shape
    if width > 1:
        return x.stride(3)
    if height > 1:
        return x.stride(2)
    return x.stride(0) if images > 1 else channels


def is_nhwc(x: Tensor) -> bool:
    """Whether (N, C, H, W) lies as NHWC, perhaps as a channel slice of a wider NHWC tensor."""
    n, c, h, w = x.shape
    step = pixel(x)
    wanted = zip((n, h, w), (x.stride(0), x.stride(2), x.stride(3)), (h * w, w, 1), strict=True)
    return (
        step >= c
        and (c == 1 or x.stride(1) == 1)
        and all(size == 1 or stride == step * k for size, stride, k in wanted)
    )


def is_dense(x: Tensor) -> bool:
    """Whether elements fill their memory without gaps, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1
    ):
        if stride != expected:
            return False
        expected *= size
    return True
