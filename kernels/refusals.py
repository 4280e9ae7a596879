"""How something that cannot be served is refused: what it is, what was found, what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from pnas_fast.kernels.backend import BackendError

HALVES = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, torch.float64, *HALVES)


def check_tensor(
    who: str, name: str, value: Any, dtypes: Sequence[torch.dtype], device: torch.device | None
) -> None:
    """Refuse what is no tensor, or of other types, on another device (None is any) or no plain numbers."""
    if not isinstance(value, Tensor):
        refuse(who, name, f"a {type(value).__name__}", "a tensor")
    if value.dtype not in dtypes:
        refuse(who, f"{name}: its type", value.dtype, words(dtypes))
    if device is not None and value.device != device:
        refuse(who, f"{name}: its device", value.device, device)
    check_strided(who, name, value)


def check_strided(who: str, name: str, value: Tensor) -> None:
    """Refuse a tensor whose numbers are not in its memory one by one, as they are."""
    if value.layout is not torch.strided or value.is_neg():
        found = value.layout if value.layout is not torch.strided else "negated"
        refuse(who, f"{name}: its memory", found, "plain numbers (torch.strided)")


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Whether a value is a whole number from ``least`` to ``most``."""
    return isinstance(value, int) and value >= least and (most is None or value <= most)


def lies(x: Tensor) -> str:
    """How a tensor lies in memory, in words."""
    return f"shape {tuple(x.shape)} with strides {x.stride()}"


def words(dtypes: Sequence[torch.dtype]) -> str:
    """Types, in words."""
    return " ".join(map(str, dtypes))


def refuse(who: str, thing: str, found: object, allowed: object) -> NoReturn:
    """Raise a BackendError of ``who`` refuses, what, what was found and what is allowed."""
    raise BackendError(f"{who}: {thing} is {found}, allowed is {allowed}")
