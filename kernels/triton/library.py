"""Kernels as PyTorch operators, ``pnas_fast::separable`` and so on.

So kernels have names in the profiler, on the side of the CPU too, and a graph compiler can take a launch
for what it is: an operation that writes to some of its arguments and returns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from pnas_fast.kernels.triton.cache_keys import settle_name

WRITTEN = frozenset(
    (
        *("out", "into", "dd", "sums", "tickets", "normal", "statistics"),
        *("partial", "weight_partial", "source_partial", "pointwise_partial", "depthwise_partial"),
        "kept_norm",
        *(f"{kind}_{name}" for kind in ("first", "second") for name in ("into", "d_affine", "partial")),
        *("running_mean", "running_variance", "batches"),
        *("d_norm", "d_affine", "d_weight", "d_second", "d_depthwise", "d_pointwise"),
    )
)
"""Parameters that kernels may write to. (A backward reads ``statistics``, which the forward writes.)"""

_FLOATS = frozenset({"count", "momentum", "eps", "inverse_count"})

_library = torch.library.Library("pnas_fast", "FRAGMENT")


def call(
    kernel: Any,
    grid: Sequence[int],
    arguments: Mapping[str, Any],
    grouped: Set[str],
    options: Mapping[str, int],
) -> None:
    """Launch a kernel through its operator.

    Args:
        kernel: a jitted function named ``…_kernel``.
        grid: programs along each axis.
        arguments: by parameter name; tensors, tuples of them, None, numbers.
        grouped: names of those that are tuples, or None for none.
        options: of Triton's compiler, whole numbers.
    """
    operator = _operators.get(kernel.__name__) or _define(kernel, arguments, grouped)
    given = [
        () if arguments[name] is None and name in grouped else arguments[name] for name in kernel.arg_names
    ]
    operator(*given, grid, list(options), list(options.values()))


_operators: dict[str, Any] = {}


def name_of(kernel: Any) -> str:
    """An operator's name in the namespace ``pnas_fast``."""
    name: str = kernel.__name__.removesuffix("_kernel")
    return name


def _define(kernel: Any, arguments: Mapping[str, Any], grouped: Set[str]) -> Any:
    """Make a kernel's operator; which parameters are tensors, its first launch tells."""
    settle_name(kernel)
    name = name_of(kernel)
    places = [
        f"{_type(key, arguments[key], key in grouped, index)} {key}"
        for index, key in enumerate(kernel.arg_names)
    ]
    _library.define(f"{name}({', '.join(places)}, int[] grid, str[] options, int[] values) -> ()")

    def run(*values: Any) -> None:
        *given, grid, names, settings = values
        own = [(tuple(value) or None) if isinstance(value, (list, tuple)) else value for value in given]
        kernel[tuple(grid)](*own, **dict(zip(names, settings, strict=True)))

    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pnas_fast::{name}", _run_nothing, lib=_library)
    _operators[kernel.__name__] = getattr(torch.ops.pnas_fast, name).default
    return _operators[kernel.__name__]


def _run_nothing(*values: Any) -> None:
    """What a graph compiler runs on tensors without memory."""


def _type(name: str, value: Any, grouped: bool, index: int) -> str:
    if value is None or isinstance(value, (Tensor, tuple)):
        kind = f"Tensor(a{index}!)" if name in WRITTEN else "Tensor"
        return kind + ("[]" if grouped else "?")
    if name in _FLOATS:
        return "float"
    return "bool" if isinstance(value, bool) else "int"
