"""Why an evaluation failed, in one line."""

from __future__ import annotations

import contextlib
import traceback

import torch

OUT_OF_MEMORY = "out of memory"

_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "alloc_failed")
"""Of plain RuntimeErrors: PyTorch's allocator on a CPU, CUDA's own calls, cuBLAS."""


class TrialError(Exception):
    """An evaluation cannot go on; the message is the whole reason."""


def reason(error: BaseException) -> str:
    """``Type: first line``."""
    first_line = str(error).strip().split("\n", 1)[0]
    if isinstance(error, TrialError):
        return first_line
    texts = _MEMORY_TEXTS if isinstance(error, RuntimeError) else ()
    memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if memory or any(text in first_line.lower() for text in texts):
        return f"{OUT_OF_MEMORY}: {first_line}" if first_line else OUT_OF_MEMORY
    name = type(error).__name__
    return f"{name}: {first_line}" if first_line else name


def logged_reason(error: BaseException) -> str:
    """The same; anything unforeseen leaves its traceback on standard error, which is a worker's log."""
    found = reason(error)
    if not isinstance(error, TrialError) and not is_out_of_memory(found):
        with contextlib.suppress(OSError, ValueError):  # a full disk may be what it ends on
            traceback.print_exception(error)
    return found


def is_out_of_memory(text: str) -> bool:
    """Whether a reason is that there was not enough memory."""
    return text.startswith(OUT_OF_MEMORY)
