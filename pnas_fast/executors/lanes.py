"""Tasks side by side in one process, in turns: each on a stream of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from pnas_fast.engine.streams import PAUSE, HostStream, Steps, Stream, new_stream
from pnas_fast.protocols import Stepped, Task

TURN = 10
"""Steps of a task before it is another's turn. On a card they only have to be given to its stream."""

Answering = Steps[dict[str, Any]]
"""What becomes of a task: after all of its steps, the message with its result."""


class _Lane:
    """A stream, which is that of one task after the other, and the task there."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.answering: Answering | None = None

    def advance(self) -> tuple[bool, dict[str, Any] | None]:
        """Take a turn: whether the task waits for the device, and its message if it is over."""
        assert self.answering is not None
        with self._stream.entered():
            try:
                for _ in range(TURN):
                    if next(self.answering):
                        return True, None
            except StopIteration as end:
                self.answering = None
                return False, end.value
        return False, None


class Lanes:
    """Up to so many tasks at a time.

    Args:
        evaluator: that can stop, or each task is done at once, and there is one at a time.
        device: of all.
        count: of tasks at most.
        answer: what becomes of a task.
    """

    def __init__(self, evaluator: Any, device: str, count: int, answer: Callable[[Task], Answering]) -> None:
        self._answer = answer
        # What cannot stop may also not know of streams: it works where a process of its own would.
        streams = (
            [new_stream(torch.device(device)) for _ in range(count)]
            if isinstance(evaluator, Stepped)
            else [HostStream()]
        )
        self._lanes = [_Lane(stream) for stream in streams]

    def __len__(self) -> int:
        """How many tasks there may be."""
        return len(self._lanes)

    @property
    def busy(self) -> bool:
        """Whether there are any."""
        return any(lane.answering is not None for lane in self._lanes)

    def begin(self, task: Task) -> None:
        """Take a task more."""
        lane = next(lane for lane in self._lanes if lane.answering is None)
        lane.answering = self._answer(task)

    def advance(self) -> list[dict[str, Any]]:
        """Give each task a turn, or sleep a little while all wait for the device; messages of those over.

        Raises:
            OSError, EvaluatorError: the run cannot go on.
        """
        taken = [lane.advance() for lane in self._lanes if lane.answering is not None]
        if taken and all(waits for waits, _ in taken):
            time.sleep(PAUSE)
        return [message for _, message in taken if message is not None]
