"""What a tracker has been told of a run: ``RUN/tracking/NAME.json``, so that nothing is logged twice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pnas_fast.files import replacing
from pnas_fast.runs.folder import RunError
from pnas_fast.tracking.messages import Point

FOLDER = "tracking"
"""In a run's folder: what trackers keep."""


class Marks(msgspec.Struct):
    """Points of one kind that were logged: numbers below ``below`` but for those that were ``dropped``.

    Of those that were logged, ``failed`` are logged again once they are done.
    """

    below: int = 0
    dropped: set[int] = set()
    failed: set[int] = set()


class State(msgspec.Struct):
    """How far a tracker is with a run.

    Attributes:
        identity: of the run; with another configuration the tool has a run of its own.
        known: what the tool calls the run.
        step: beyond that of every logged point.
        marks: by kind of point.
    """

    identity: str
    known: str = ""
    step: int = 0
    marks: dict[str, Marks] = {}

    def lacks(self, point: Point) -> bool:
        """Whether a point is still to be logged."""
        marks = self.marks.get(point.kind, Marks())
        again = point.number in marks.dropped or (point.number in marks.failed and point.done)
        return point.number >= marks.below or again

    def logged(self, point: Point) -> None:
        """Remember that a point was logged, as were all before it but those that were dropped."""
        marks = self.marks.setdefault(point.kind, Marks())
        marks.below = max(marks.below, point.number + 1)
        marks.dropped.discard(point.number)
        (marks.failed.discard if point.done else marks.failed.add)(point.number)
        self.step = max(self.step, point.step + 1)

    def dropped(self, point: Point) -> None:
        """Remember that a point was not logged."""
        marks = self.marks.setdefault(point.kind, Marks())
        marks.below = max(marks.below, point.number + 1)
        marks.dropped.add(point.number)

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(self, order="deterministic"))


def load(path: Path, identity: str) -> State:
    """What was kept of the run of this identity; new where that is another, or none.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State(identity)
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise RunError(
            f"{path}: does not tell what was tracked ({error}); put it back, or remove it to track the run "
            "from its beginning once more"
        ) from error
    return state if state.identity == identity else State(identity)
