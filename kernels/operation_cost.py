"""What PyTorch's own operations launch and move, counted as they are called.

How each is counted, on a GPU without graph compilation:

* views, allocations and bookkeeping of autograd launch nothing;
* a convolution's backward is two launches, one for the gradient of its input and one for that of its
  weights, and each reads the gradient of its output; either is absent where nobody wants it;
* batch norm is one launch that passes over its input twice, for statistics and for use; its backward passes
  over the input and the gradient twice, for sums and for use;
* a maximum's backward reads the int64 indices that its forward wrote;
* everything else reads its arguments and writes its results once: ReLU and its backward (which reads
  the result), additions of gradients that meet, padding, concatenation.

No optimiser, no casts (activations and weights share a type), no workspace of the convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pnas_fast.kernels._torch_internals import TorchDispatchMode


class Cost(NamedTuple):
    """Of launches together.

    Attributes:
        launches: how many.
        bytes: that they move, each tensor once for each pass over it.
        once: the same where a launch that passes over a tensor again finds it in a cache, and where an
            operation of two launches reads a tensor of both once.
    """

    launches: int = 0
    bytes: int = 0
    once: int = 0

    def plus(self, other: Cost) -> Cost:
        """The sum."""
        return Cost(*(one + another for one, another in zip(self, other, strict=True)))


def size(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of tensors, each as often as it is named."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def distinct(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    """Tensors, each once."""
    return list({id(tensor): tensor for tensor in tensors if tensor is not None}.values())


class CountOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what PyTorch's own operations cost: `kinds` by name, in the order of their first call."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: dict[str, Cost] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Any = None
    ) -> Any:
        """Run an operation and add its cost."""
        result = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        if function.is_view or name.startswith(("empty", "new_empty", "detach", "set_")):
            return result
        cost = _cost(name, arguments, list(_tensors((arguments, keywords))), list(_tensors(result)))
        self.kinds[name] = self.kinds.get(name, Cost()).plus(cost)
        return result


def _cost(name: str, arguments: Sequence[Any], inputs: list[Tensor], outputs: list[Tensor]) -> Cost:
    once = size(distinct(inputs)) + size(outputs)
    if name == "convolution_backward":
        g, x, weight = inputs[:3]
        wanted = [other for asked, other in zip(arguments[-1][:2], (x, weight), strict=True) if asked]
        # A gradient is as large as what it is of, and is made of g and the other of the two.
        moved = sum(size((g, x, weight)) for _ in wanted)
        return Cost(len(wanted), moved, once)
    if "batch_norm" in name:
        again = inputs[: 2 if "backward" in name else 1]
        return Cost(1, size(inputs) + size(again) + size(outputs), once)
    return Cost(1, size(inputs) + size(outputs), once)


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
