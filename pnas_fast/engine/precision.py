"""The type of a training's activations; weights, statistics and the optimiser's memory are always fp32."""

from __future__ import annotations

import torch

from pnas_fast.cli.options import ConfigError
from pnas_fast.kernels import get_backend

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By the name of a precision."""

PRECISIONS = ("auto", *DTYPES)


def resolve_precision(name: str, device: str, backend: str, optimizer: str) -> str:
    """The precision that a setting means: ``auto`` is replaced by the best the device has.

    That is bf16 on CUDA; where a card lacks it fp16, whose loss is scaled; fp32 on a CPU. Scaling needs an
    optimiser that can leave a step out on the device, which PyTorch's RMSprop cannot.

    Args:
        name: one of `PRECISIONS`.
        device: a device type, ``cpu`` or ``cuda``.
        backend: resolved.
        optimizer: of the settings.

    Raises:
        ConfigError: the backend or the optimiser cannot do with it.
    """
    if name == "auto":
        if device != "cuda":
            return "fp32"
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if optimizer == "sgd" else "fp32"
    dtypes = get_backend(backend).dtypes
    if DTYPES[name] not in dtypes:
        allowed = " ".join(known for known, dtype in DTYPES.items() if dtype in dtypes)
        raise ConfigError(f"precision is {name} with backend {backend}, allowed are auto {allowed}")
    if optimizer != "sgd" and name == "fp16":
        raise ConfigError(f"precision is fp16 with optimizer {optimizer}, allowed are auto fp32 bf16")
    return name
