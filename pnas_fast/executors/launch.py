"""What every process of an executor does first: be like the program that started it, and end with it.

This module imports nothing but Python's own, so that it acts before anything else is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from pnas_fast.threads import granted

_DIES_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG

_CODE = """
import json, os, sys
told = json.loads(sys.argv[1])
sys.path[:] = told["path"]
if told["cores"]:
    try:
        os.sched_setaffinity(0, told["cores"])
    except OSError:  # a core that was there is no longer
        pass
from pnas_fast.executors.launch import enter
enter(told)
"""


def command(module: str, /, **arguments: Any) -> list[str]:
    """The command of a process that calls a module's ``main`` with JSON values.

    It finds modules where this program finds them. Of the folder that either happens to work in nothing is
    imported in place of something installed: where this program looks there, its processes do so last.
    """
    told = {"module": module, "arguments": arguments, "path": search_path(), "parent": os.getpid()}
    # Where this thread ends before the program does, its processes would not live on by themselves.
    lasting = threading.current_thread() is threading.main_thread()
    cores = sorted(granted()) if hasattr(os, "sched_setaffinity") else []
    return [sys.executable, "-P", "-c", _CODE, json.dumps(told | {"lasting": lasting, "cores": cores})]


def environment() -> dict[str, str]:
    """The environment of such a process: nothing ties its threads to cores, for others would be on them."""
    ties = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
    return {name: value for name, value in os.environ.items() if name not in ties}


def search_path() -> list[str]:
    """This program's ``sys.path`` as folders that are the same from everywhere."""
    named, here = [entry for entry in sys.path if entry], "" in sys.path
    try:
        return [*map(os.path.abspath, named), *[os.getcwd()] * here]
    except FileNotFoundError:  # the folder it works in was removed
        return [entry for entry in named if os.path.isabs(entry)]


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends, however it does; at once where it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def live_on() -> None:
    """Take `end_with` back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, 0)


def use_cores(cores: list[int]) -> None:
    """Run on these cores, if the machine still has them."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)


def enter(told: Mapping[str, Any]) -> None:
    """Be the process of a `command`."""
    # Ctrl-C is for the program, which then ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Batch systems ask every process of a job to end: it is for the program to say when. A handler, since
    # what is ignored would be ignored by programs that this process starts.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    end_with(told["parent"])
    import importlib

    main = importlib.import_module(told["module"]).main
    if not told["lasting"]:
        live_on()  # from here on it sees the end of its input
    main(**told["arguments"])
