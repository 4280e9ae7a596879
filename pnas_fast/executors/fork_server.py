"""Processes forked from one that has imported what they need, instead of each importing it for itself.

Importing PyTorch takes a second and more. A search begins with it in a second process while it does so
itself; its workers are forked from there, as is one that takes the place of a worker that died, and share
the memory of what is imported. That process has no CUDA context and no second thread, so that it can be
forked.

This module imports nothing but Python's own, so that a program can start the server before anything else.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import IO, NoReturn

from pnas_fast.executors import launch

AVAILABLE = sys.platform == "linux"
"""Elsewhere a process cannot be forked, or not safely once it has imported libraries."""

START_SECONDS = 180.0
"""How long, while this process runs, a server may take to import what it is for."""

_MESSAGE = 4096
_LOOK = 0.5
_END_SECONDS = 10.0


class ForkServerError(RuntimeError):
    """The server has ended or cannot fork, so nothing is started."""


class Forked:
    """A process that a server has forked: as much of `subprocess.Popen` as one needs."""

    def __init__(self, server: ForkServer, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self._server = server
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._code: int | None = None

    def end(self, seconds: float = 0.0) -> int:
        """Its exit status, minus the signal where one has ended it; killed where it lives for so long yet."""
        try:
            self._code = self._server.end(self.pid, seconds) if self._code is None else self._code
        except ForkServerError:
            self._code = -signal.SIGKILL  # as all processes of a server that ends
        return self._code


class ForkServer:
    """A process that imports a module and forks itself to run the module's ``main`` as often as asked.

    It and its processes end with the process that has started it, however that ends.

    What it complains of before it forks, say that something cannot be imported, is kept for whoever asks.

    Args:
        module: the module's name.
    """

    def __init__(self, module: str) -> None:
        self._lock = threading.Lock()
        self._complaints = os.memfd_create("complaints")
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_LOOK)
        with theirs:
            self._process = subprocess.Popen(
                launch.command(__name__, module=module, connection=theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                # Ctrl-C is for the program, and NumPy's BLAS would start a thread as it is imported.
                process_group=0,
                env=launch.environment() | {"OPENBLAS_NUM_THREADS": "1"},
            )

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def complaints(self) -> bytes:
        """What it wrote to standard error."""
        return os.pread(self._complaints, 1 << 20, 0) if self._complaints >= 0 else b""

    def fork(self, stderr: IO[bytes], seconds: float = START_SECONDS) -> Forked:
        """Start a process with pipes for input and output, once the module has been imported.

        Args:
            stderr: its standard error.
            seconds: of this process's running time for which the server may still be importing.

        Raises:
            ForkServerError: the server has ended, does not answer, or cannot fork.
        """
        (stdin, ours_in), (ours_out, stdout) = os.pipe(), os.pipe()
        streams = os.fdopen(ours_in, "w", encoding="utf-8"), os.fdopen(ours_out, encoding="utf-8")
        try:
            pid = self._ask(["fork"], [stdin, stdout, stderr.fileno()], seconds)
        except BaseException:
            for stream in streams:
                stream.close()
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return Forked(self, pid, *streams)

    def end(self, pid: int, seconds: float = 0.0) -> int:
        """A process's exit status, minus the signal if one ended it.

        Args:
            pid: a process of this server.
            seconds: for which it is waited for, if it has not ended, before it is killed.

        Raises:
            ForkServerError: the server has ended or does not answer.
        """
        return self._ask(["end", pid, seconds], [], seconds + _END_SECONDS)

    def close(self) -> None:
        """End the server and all its processes."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        if self._complaints >= 0:
            complaints, self._complaints = self._complaints, -1
            os.close(complaints)

    def _ask(self, question: list[str | float], streams: list[int], seconds: float) -> int:
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps(question).encode()], streams)
                answer = self._receive(seconds)
            except OSError:
                answer = b""
            except BaseException:
                # Ctrl-C, or no answer. The one to come would be taken for that to the next question.
                self.close()
                raise
            if not answer:
                code = self._process.wait()
                raise ForkServerError(f"the process that starts others has ended, exit status {code}")
        value, error = json.loads(answer)
        if error:
            raise ForkServerError(f"no process can be started: {os.strerror(error)}")
        return int(value)

    def _receive(self, seconds: float) -> bytes:
        waited = 0.0
        while True:
            began = time.monotonic()
            try:
                return self._socket.recv(_MESSAGE)
            except TimeoutError:
                # What is more passed while this process was stopped.
                waited += min(time.monotonic() - began, 2 * _LOOK)
            if waited >= seconds:
                raise ForkServerError(f"the process that starts others gives no answer for {seconds:g} s")


_servers: dict[str, ForkServer] = {}


def fork_server(module: str) -> ForkServer:
    """This process's server for a module, started unless it runs; it is kept until `end_servers`.

    For a command that knows early that it will need one. It ends with the program in any case.
    """
    server = running_server(module)
    if server is None:
        server = _servers[module] = ForkServer(module)
    return server


def running_server(module: str) -> ForkServer | None:
    """The server that `fork_server` has started for a module, if it runs."""
    server = _servers.get(module)
    return server if server is not None and server.alive else None


def end_servers() -> None:
    """End the servers that `fork_server` has started."""
    while _servers:
        _servers.popitem()[1].close()


def main(module: str, connection: int) -> NoReturn:
    """Be the server, at the other end of a connection."""
    _serve(module, socket.socket(fileno=connection))


def _serve(module: str, connection: socket.socket) -> NoReturn:
    gc.disable()
    serve: Callable[[], None] = importlib.import_module(module).main
    gc.enable()
    gc.collect()
    gc.freeze()  # or a process's first collection would copy every page it looks at
    # The program has ended, perhaps in the middle of a question: nobody is to be told.
    with contextlib.suppress(ConnectionError):
        while True:
            message, streams, _, _ = socket.recv_fds(connection, _MESSAGE, 3)
            if not message:
                break
            what, *arguments = json.loads(message)
            answer = (_end(*arguments), 0) if what == "end" else _fork(serve, connection, streams)
            connection.send(json.dumps(answer).encode())
    os._exit(0)


def _end(pid: int, seconds: float) -> int:
    # Where it is no child of this process, this raises: nobody else's is killed.
    limit = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= limit:
            break
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(main: Callable[[], None], connection: socket.socket, streams: list[int]) -> tuple[int, int]:
    """The new process's number, and 0; or 0 and why there is none."""
    server, code = os.getpid(), 0
    try:
        pid = os.fork()
    except OSError as error:  # too many processes, too little memory
        pid, code = -1, error.errno or errno.EAGAIN
    if pid == 0:
        try:
            launch.end_with(server)
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
        except BaseException:
            os._exit(1)
        _run(main)
    for stream in streams:
        os.close(stream)
    return max(pid, 0), code


def _run(main: Callable[[], None]) -> NoReturn:
    """Be the new process, and never return into the server's loop."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
