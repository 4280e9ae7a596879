"""Processes forked from one that has imported what they need, instead of each importing it for itself.

Importing PyTorch takes a second and more. A search begins with it in a second process while it does so
itself; its workers are forked from there, as is one that takes the place of a worker that died, and share
the memory of what is imported. That process has no CUDA context and no second thread, so that it can be
forked.

This module imports nothing but Python's own, so that a program can start the server before anything else.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, NoReturn

AVAILABLE = sys.platform == "linux"
"""Elsewhere a process cannot be forked, or not safely once it has imported libraries."""

_MESSAGE = 4096
_DIES_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class ForkServerError(RuntimeError):
    """The server has ended, so nothing can be forked."""


class Forked:
    """A process that a server has forked: as much of `subprocess.Popen` as one needs."""

    def __init__(self, server: ForkServer, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self._server = server
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._code: int | None = None

    def kill(self) -> None:
        """End it if it has not ended."""
        try:
            self._code = self._server.end(self.pid) if self._code is None else self._code
        except ForkServerError:
            self._code = -signal.SIGKILL  # as all processes of a server that ends

    def wait(self) -> int:
        """The exit status of a process that was killed, minus the signal where one has ended it."""
        assert self._code is not None
        return self._code


class ForkServer:
    """A process that imports a module and forks itself to run the module's ``main`` as often as asked.

    It and its processes end with the process that has started it, however that ends.

    Args:
        module: the module's name.
    """

    def __init__(self, module: str) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C is for the program, and NumPy's BLAS would start a thread as it is imported.
                process_group=0,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def fork(self, stderr: IO[bytes]) -> Forked:
        """Start a process with pipes for input and output, once the module has been imported.

        Raises:
            ForkServerError: the server has ended.
        """
        (stdin, ours_in), (ours_out, stdout) = os.pipe(), os.pipe()
        streams = os.fdopen(ours_in, "w", encoding="utf-8"), os.fdopen(ours_out, encoding="utf-8")
        try:
            pid = self._ask("fork", 0, [stdin, stdout, stderr.fileno()])
        except BaseException:
            for stream in streams:
                stream.close()
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return Forked(self, pid, *streams)

    def end(self, pid: int) -> int:
        """Kill a process of this server if it has not ended; its exit status, minus the signal if one did it.

        Raises:
            ForkServerError: the server has ended.
        """
        return self._ask("end", pid, [])

    def close(self) -> None:
        """End the server and all its processes."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, what: str, pid: int, streams: list[int]) -> int:
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps([what, pid]).encode()], streams)
                answer = self._socket.recv(_MESSAGE)
            except OSError:
                answer = b""
            except BaseException:
                # Ctrl-C. The answer to come would be taken for that to the next question.
                self.close()
                raise
            if not answer:
                code = self._process.wait()
                raise ForkServerError(f"the process that starts others has ended, exit status {code}")
        return int(answer)


_servers: dict[str, ForkServer] = {}


def fork_server(module: str) -> ForkServer:
    """This process's server for a module, started unless it runs."""
    server = _servers.get(module)
    if server is None or not server.alive:
        server = _servers[module] = ForkServer(module)
        atexit.register(server.close)
    return server


def end_servers() -> None:
    """End this process's servers, where they turn out not to be needed."""
    while _servers:
        _servers.popitem()[1].close()


def _serve(module: str, connection: socket.socket) -> NoReturn:
    gc.disable()
    main: Callable[[], None] = importlib.import_module(module).main
    gc.enable()
    gc.collect()
    gc.freeze()  # or a process's first collection would copy every page it looks at
    # The program has ended, perhaps in the middle of a question: nobody is to be told.
    with contextlib.suppress(ConnectionError):
        while True:
            message, streams, _, _ = socket.recv_fds(connection, _MESSAGE, 3)
            if not message:
                break
            what, pid = json.loads(message)
            answer = _end(pid) if what == "end" else _fork(main, connection, streams)
            connection.send(str(answer).encode())
    os._exit(0)


def _end(pid: int) -> int:
    # Where it is no child of this process, this raises: nobody else's is killed.
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _fork(main: Callable[[], None], connection: socket.socket, streams: list[int]) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != server:  # it has ended before that
            os._exit(1)
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _run(main)
    for stream in streams:
        os.close(stream)
    return pid


def _run(main: Callable[[], None]) -> NoReturn:
    """Be the new process, and never return into the server's loop."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
