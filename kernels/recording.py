"""A step as the list of what it did on the CPU, done again without working any of it out in Python.

What a CUDA graph is on a card. Between two calls of the compiled kernels a small network's step spends longer
in Python and autograd than in the kernels; a second time only their arguments are needed, and those are the
same addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pnas_fast import _cpu_kernels as compiled
from pnas_fast.kernels._torch_internals import TorchDispatchMode, foreach_copy_, writes
from pnas_fast.kernels.step_memory import StepMemory

_aten = torch.ops.aten
_ALLOCATE = {
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.new_empty,
    _aten.new_empty_strided,
}
"""Operators that give a new tensor memory and write nothing: it is there already the second time."""

_READ_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recording:
    """A step that can be done again.

    The step must be one that a CUDA graph could hold: a function of tensors that stay where they are, without
    arguments or result. Whatever it works out in Python is as it was when it was recorded.

    Attributes:
        refusal: why the step cannot be done again, None where it can: an operator by which it read a value,
            or one that is not PyTorch's own.
    """

    def __init__(self) -> None:
        self.refusal: str | None = None
        self._again: list[Callable[[], Any]] = []
        self._memory = StepMemory()
        self._kept: list[torch.UntypedStorage] = []

    def record(self, step: Callable[[], None]) -> None:
        """Do the step, taking notes."""
        with _Notes(self):
            step()

    def replay(self) -> None:
        """Do the step again, with the same bits as by itself."""
        with torch.no_grad():
            for again in self._again:
                again()

    def __len__(self) -> int:
        """Operators, and runs of compiled calls between them."""
        return len(self._again)

    def add(self, again: Callable[[], Any]) -> None:
        """Note what to do next."""
        self._again.append(again)

    @property
    def memory(self) -> list[torch.UntypedStorage]:
        """All memory of what the step made."""
        return self._memory.storages + self._kept

    def place(self, made: Tensor) -> None:
        """Give a tensor that nobody has written to yet memory of the step."""
        storage = self._memory.take(made.untyped_storage().nbytes())
        made.set_(storage, made.storage_offset(), made.shape, made.stride())

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Keep the memory of tensors that the step has made."""
        self._kept += [tensor.untyped_storage() for tensor in tensors]


class _Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes of PyTorch's operators, and between them of the compiled module's calls."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recording = recording
        self._tape = compiled.Tape()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to keep PyTorch's compiler away from ``__torch_dispatch__`` would import it, for a second."""
        return False

    def __enter__(self) -> Any:
        compiled.record(self._tape)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._add_calls()
        compiled.record(None)

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        result = operator(*arguments, **keywords)
        if operator.overloadpacket in _ALLOCATE:
            self._recording.place(result)
        elif operator.namespace == "aten":
            self._note(operator, arguments, keywords, result)
        elif operator.namespace != "profiler":  # which only marks times
            self._recording.refusal = str(operator)
        return result

    def _note(self, operator: Any, arguments: Any, keywords: Any, result: Any) -> None:
        made = list(_tensors(result))
        changes = writes(operator)
        if not changes:
            read = set(map(_place, _tensors((arguments, tuple(keywords.values())))))
            if made and read.issuperset(map(_place, made)):
                return  # views, which are there already
            self._recording.keep(made)
        if operator is _aten.set_.source_Storage_storage_offset:
            return  # memory for a tensor, which has it already
        if _READ_VALUES.intersection(operator.tags):
            self._recording.refusal = str(operator)
        call = partial(
            operator, *_detached(arguments), **{name: _detached(v) for name, v in keywords.items()}
        )
        self._add_calls()
        self._recording.add(call if changes else partial(_write, call, _detached(made)))

    def _add_calls(self) -> None:
        """Note the compiled module's calls since the last operator."""
        if len(self._tape):
            self._recording.add(self._tape.run)
            self._tape = compiled.Tape()
            compiled.record(self._tape)


def _write(call: Callable[[], Any], to: list[Tensor]) -> None:
    """Have an operator's results where those of the first time are."""
    again = call()
    if isinstance(again, Tensor):
        to[0].copy_(again)
    else:
        foreach_copy_(to, list(_tensors(again)))


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results; PyTorch's own trees take far longer."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)


def _detached(values: Any) -> Any:
    """The same without the step's graph of gradients, which its tensors carry and would keep."""
    if isinstance(values, Tensor):
        return values.detach()
    return type(values)(map(_detached, values)) if isinstance(values, tuple | list) else values


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
