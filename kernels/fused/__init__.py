"""A backend of fused kernels: one set of autograd functions over the kernels of a device."""

from pnas_fast.kernels.fused.backend import FusedBackend
from pnas_fast.kernels.fused.grouped import GroupedBackend
from pnas_fast.kernels.fused.primitives import (
    Backward,
    Convolution,
    Forward,
    Gradients,
    Normal,
    Pooled,
    Primitives,
    Result,
    Source,
    Sum,
    SumBackward,
)

__all__ = [
    "Backward",
    "Convolution",
    "Forward",
    "FusedBackend",
    "Gradients",
    "GroupedBackend",
    "Normal",
    "Pooled",
    "Primitives",
    "Result",
    "Source",
    "Sum",
    "SumBackward",
]
