"""Where tests run Triton's kernels: on the card, or in Triton's interpreter on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pnas_fast.kernels.triton.launch import INTERPRETED

__all__ = ["BF16_ERROR", "DEVICE", "INTERPRETED", "default_device"]

DEVICE = "cpu" if INTERPRETED else "cuda"

BF16_ERROR = 5e-2 if INTERPRETED else 3e-2
"""Largest relative error in bf16: the interpreter truncates where a card rounds."""


@contextmanager
def default_device(device: str = DEVICE) -> Iterator[None]:
    """New tensors are on that device; there PyTorch's own convolutions have all digits of fp32."""
    if device == "cpu":
        yield
        return
    torch.set_default_device(device)
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_default_device(None)
