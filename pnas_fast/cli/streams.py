"""How a command starts and ends: neither what it prints nor a signal ends in a traceback or in half a file.

This module imports nothing but Python's own, so that a command can begin with it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TextIO

INTERRUPTED = 130
"""The exit status of a command that was stopped by Ctrl-C."""

CLOSED = 141
"""The exit status of a command whose output nobody reads any more: a shell's for SIGPIPE."""

_FALLIBLE = ("strict", "surrogateescape", "surrogatepass")
"""Error handlers of streams that cannot write every text."""

_Arguments = ParamSpec("_Arguments")


class OutputClosed(KeyboardInterrupt):
    """Nobody reads the output any more: the command is to stop as it does for Ctrl-C."""


def run_command(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
    """Make a program of what it does; every command has this around its ``main``.

    While it runs, text that standard output and error cannot encode is written with backslashes. A pipe
    that nobody reads any more ends it without a word, with status `CLOSED`. Output that cannot be written
    for another reason, as on a full disk, is lost with one line on standard error; the command goes on, and
    its status is 1 where it would have been 0. A standard stream that was closed from the beginning leads
    nowhere. Ctrl-C, SIGTERM and SIGHUP that the command does not handle itself let it clean up; its status
    is 128 and the signal's number. A signal that was to be ignored, as under nohup, still is.
    """

    @functools.wraps(main)
    def command(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
        # The last search for garbage would look at all that PyTorch has, for a third of a second.
        atexit.unregister(gc.freeze)
        atexit.register(gc.freeze)
        _fill_descriptors()
        before = sys.stdout, sys.stderr
        outputs: list[_Output] = []
        sys.stdout = _watched(sys.stdout, "standard output", outputs)
        sys.stderr = _watched(sys.stderr, "standard error", outputs)
        try:
            with _signals() as stopped:
                status = _status(main, outputs, stopped, *args, **kwargs)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OutputClosed):
                    stream.flush()
            sys.stdout, sys.stderr = before
        if any(output.unread for output in outputs):
            return CLOSED
        return status or int(any(output.error is not None for output in outputs))

    return command


def _status(
    main: Callable[_Arguments, int],
    outputs: list[_Output],
    stopped: list[int],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> int:
    try:
        try:
            return main(*args, **kwargs)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except KeyboardInterrupt:
        return 128 + stopped[0] if stopped else INTERRUPTED
    except SystemExit as end:
        # Such as after --help, which may not have been written.
        if end.code or not any(output.error for output in outputs):
            raise
        return 0


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that have come: such as would end the process do what Ctrl-C does, the first time."""
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopped.append(number)
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [
        number for name in names if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL
    ]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python sets them in the main thread alone
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Output(io.RawIOBase):
    """A standard stream's file, which takes all that is written to it, whether or not that can be done.

    Attributes:
        error: why the first bytes were lost; None while none were.
    """

    def __init__(self, raw: Any, title: str) -> None:
        super().__init__()
        self._raw, self._title, self._told = raw, title, False
        self.name = raw.name
        self.error: OSError | None = None

    @property
    def unread(self) -> bool:
        """Whether it is a pipe, and nobody reads it any more."""
        return self.error is not None and self.error.errno in (errno.EPIPE, errno.ESHUTDOWN)

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor of what is written to."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int:
        """Write all of some bytes, or lose them.

        Raises:
            OutputClosed: nobody reads them; once, and in the main thread, which is the one to stop.
        """
        view = memoryview(data).cast("B")
        if not self.unread:
            try:
                self._write(view)
            except OSError as error:
                self._lost(error)
        if self.unread and not self._told and threading.current_thread() is threading.main_thread():
            self._told = True
            raise OutputClosed
        return len(view)

    def _write(self, view: memoryview) -> None:
        while view:
            written = self._raw.write(view)
            if written is None:  # a pipe that does not wait for its reader: so wait here
                select.select([], [self._raw], [])
            else:
                view = view[written:]

    def _lost(self, error: OSError) -> None:
        first, self.error = self.error is None, error
        if first and not self.unread and self._title == "standard output":
            program = os.path.basename(sys.argv[0]) or "python"
            reason = error.strerror or str(error)
            print(
                f"{program}: {self._title} cannot be written to ({reason}): output is lost", file=sys.stderr
            )


def _watched(stream: TextIO | None, title: str, outputs: list[_Output]) -> TextIO:
    """A stream that writes where another does; its `_Output` is added to the list."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if type(stream) is not io.TextIOWrapper:  # a test's, or a notebook's: it is theirs
        return stream
    stream.flush()
    output = _Output(getattr(stream.buffer, "raw", stream.buffer), title)
    outputs.append(output)
    return io.TextIOWrapper(
        # Without a buffer where Python is asked for that.
        output if stream.write_through else io.BufferedWriter(output),
        stream.encoding,
        "backslashreplace" if stream.errors in _FALLIBLE else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _fill_descriptors() -> None:
    """Point closed standard descriptors at nothing: or the next file opened would get what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
