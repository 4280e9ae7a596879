"""A CUDA graph's stand-in on a CPU: it notes every operator of a step and does them again.

Whatever a step works out in Python is in the notes as it was when they were taken, and reading a value from
the device is refused, as in a real capture. What C++ kernels do to plain addresses is not noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pnas_fast.training.graph import GraphedStep, Step

WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}
"""Operators that need the device to be done before Python can go on."""


class RecordedGraph:
    """See the top of the file, and `pnas_fast.training.graph.Graph`."""

    def __init__(self) -> None:
        self.replays = 0
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def warm_up(self, step: Step) -> None:
        step()

    def capture(self, step: Step) -> None:
        generator = torch.get_rng_state()
        notes = _Notes(self._calls)
        with notes:
            step()
        notes.undo()
        torch.set_rng_state(generator)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for operator, arguments, keywords, before in self._calls:
                again = operator(*arguments, **keywords)
                for old, new in zip(_tensors(before), _tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class _Notes(TorchDispatchMode):  # type: ignore[misc, no-untyped-call]
    def __init__(self, calls: list[tuple[Any, Any, Any, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls
        self._known: dict[int, Any] = {}
        self._before: list[tuple[Any, Any]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        assert operator.overloadpacket.__name__ not in WAITS, f"a captured step waits for {operator}"
        for tensor in _tensors((arguments, keywords)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._known:
                self._before.append((storage, storage.clone()))
                self._known[storage.data_ptr()] = storage
        result = operator(*arguments, **(keywords or {}))
        # What is made here stays, so that its address is nobody else's.
        self._known |= {t.untyped_storage().data_ptr(): t.untyped_storage() for t in _tensors(result)}
        self._calls.append((operator, arguments, keywords or {}, result))
        return result

    def undo(self) -> None:
        """A capture does nothing: what was there before is again as it was."""
        for storage, kept in self._before:
            storage.copy_(kept)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def recorded(graphs: list[RecordedGraph]) -> Callable[..., Step]:
    """A stand-in for `pnas_fast.training.graph.graphed` that leaves its graphs in a list."""

    def graphed(step: Step, device: torch.device, warm_up: int = 2) -> Step:
        graphs.append(RecordedGraph())
        return GraphedStep(step, graphs[-1], warm_up)

    return graphed
