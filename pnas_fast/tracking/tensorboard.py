"""TensorBoard: event files in the run's folder, written by TensorBoard's own record writer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from pnas_fast.tracking.messages import Begin, Finish, Point

_FORMAT = "brain.Event:2"
_RGBA = 4


class TensorBoard:
    """See `Tool`. A run is a folder of event files, one for each time that it is gone on with."""

    def begin(self, begin: Begin) -> str:
        """See `Tool`; the run's name is that of its folder."""
        folder = Path(begin.folder) / begin.identity
        folder.mkdir(parents=True, exist_ok=True)
        # Readers take the files of a folder in order of their names.
        path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._writer = RecordWriter(path.open("xb"))
        self._write(Event(file_version=_FORMAT))
        # Readers forget what a process logged from here on that was killed before it could say so.
        self._write(Event(step=begin.step, session_log=SessionLog(status=SessionLog.START)))
        if not begin.step:
            rows = "".join(f"| {name} | `{json.dumps(v)}` |\n" for name, v in begin.parameters.items())
            self._write(Event(summary=text_pb("parameters", f"| parameter | value |\n|---|---|\n{rows}")))
        self._writer.flush()
        return begin.identity

    def log(self, points: Sequence[Point]) -> None:
        """See `Tool`."""
        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            self._write(Event(step=point.step, summary=Summary(value=values)))
            for name, text in point.texts.items():
                self._write(Event(step=point.step, summary=text_pb(name, f"`{text}`")))
        self._writer.flush()

    def finish(self, finish: Finish) -> None:
        """See `Tool`; of what the run left, figures alone."""
        for name in finish.figures:
            path = Path(name)
            with Image.open(path) as image:
                width, height = image.size
            content = Summary.Image(
                height=height, width=width, colorspace=_RGBA, encoded_image_string=path.read_bytes()
            )
            value = Summary.Value(tag=f"figures/{path.stem}", image=content)
            self._write(Event(step=finish.step, summary=Summary(value=[value])))
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
