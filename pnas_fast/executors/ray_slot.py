"""What a Ray actor does in the place of a worker process: the same, with calls where that has pipes.

All that goes to and fro is JSON, and the bytes of files and of the data set.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pnas_fast.data import DataSet
from pnas_fast.data.digest import digest, test_digest
from pnas_fast.engine import TrainingSettings
from pnas_fast.engine.loading import load_training_data
from pnas_fast.executors import launch
from pnas_fast.executors.host_folder import HostFolder
from pnas_fast.executors.messages import Setup, decode_setup, decode_task
from pnas_fast.executors.settings import settle
from pnas_fast.executors.shared import has_data, unpack, write_data
from pnas_fast.executors.worker import STOPS, answer, prepare, stopped
from pnas_fast.foreign import reason
from pnas_fast.kernels import BackendError, resolve_backend
from pnas_fast.protocols import Evaluator
from pnas_fast.running import Watched
from pnas_fast.threads import granted
from pnas_fast.version import VERSION

_LOOK_SECONDS = 1.0

Packed = Mapping[str, np.ndarray]
"""What `pnas_fast.executors.shared.pack` gives."""


class Slot:
    """A device slot of a host. `begin` comes first, then `measure` any number of times.

    `look` and `leave` may be called from another thread meanwhile.

    Args:
        token: names the search.
        place: the folder that the search works in; relative names of files hold here too where there is one.
        path: where the search finds modules; this process does so too, after its own places.
    """

    def __init__(self, token: str, place: str, path: Sequence[str]) -> None:
        sys.path += [entry for entry in path if entry not in sys.path and os.path.exists(entry)]
        with contextlib.suppress(OSError):
            os.chdir(place)
        launch.use_cores(sorted(granted()))
        self._host = HostFolder(token)
        self._folder = self._host.path / f"slot-{os.getpid()}"
        self._folder.mkdir(exist_ok=True)
        self._evaluator: Evaluator | None = None
        self._setup: Setup | None = None
        self._data: Any = None
        self._seen = 0
        self._watched: Watched | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, setup: str, data: str, backend: str, packed: Packed | None) -> str:
        """Be ready for tasks.

        Args:
            setup: a `Setup` but for its folders, as JSON.
            data: as JSON the ``settings`` by which this host may open the data, and their `digests`.
            backend: that children ask for.
            packed: the data; None lets the host open them.

        Returns:
            JSON: `facts`, the ``place`` (node, GPU and the host's name), and ``ready``, or ``needs`` with the
            reason why the data must be sent, or what `stopped` gives.
        """
        self._watched = Watched(threading.get_native_id())
        asked = decode_setup(json.loads(setup))
        message: dict[str, Any] = {"facts": facts(backend, asked.device), "place": _place()}
        place = self._host.path / "data"
        try:
            missing = self._lay_out(place, json.loads(data), packed)
            if missing:
                return json.dumps(message | {"needs": missing})
            self._setup = replace(asked, data=str(place), folder=str(self._folder))
            self._evaluator, self._data = prepare(self._setup)
        except STOPS as error:
            return json.dumps(message | stopped(error))
        return json.dumps(message | {"ready": True})

    def measure(self, task: str) -> tuple[str, dict[str, bytes]]:
        """Evaluate a cell.

        Returns:
            The message of a worker (`pnas_fast.executors.worker.answer`, `stopped`) as JSON, and the files
            that the measurement left, by their names within the run's folder.
        """
        assert self._evaluator is not None, "begin() comes first"
        assert self._setup is not None
        self._seen = 0
        self._watched = Watched(threading.get_native_id())
        settle(self._setup.threads)  # which is in part a thread's own, and calls come on any
        try:
            message = answer(
                self._evaluator, decode_task(json.loads(task)), self._setup, self._data, self._report
            )
            return json.dumps(message, allow_nan=False), self._take_files()
        except STOPS as error:
            return json.dumps(stopped(error)), {}

    def look(self) -> tuple[int, float]:
        """Images that the task has seen, and its seconds of running time, or those of `begin`."""
        return self._seen, 0.0 if self._watched is None else self._watched.running

    def empty(self) -> None:
        """Give memory back that is only kept for the next child."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def leave(self) -> None:
        """Remove what this host has of the search, unless another slot of it is here."""
        self._host.leave()

    def _report(self, images: int) -> None:
        self._seen = int(images)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            if self._watched is not None:
                self._watched.look()

    def _lay_out(self, place: Path, data: Mapping[str, Any], packed: Packed | None) -> str:
        """Lay the data out for all slots of this host; the reason why they are not to be had, or nothing."""
        with self._host.alone():
            if has_data(place):
                return ""
            if packed is not None:
                unpack(packed, place)
                return ""
            try:
                found = load_training_data(TrainingSettings(**data["settings"]))
            except Exception as error:  # whatever this host has in their place
                return reason(error)
            if digests(found) != data["digests"]:
                return f"{data['settings']['data']} is other images there"
            write_data(found, place)
        return ""

    def _take_files(self) -> dict[str, bytes]:
        files = {}
        for path in sorted(self._folder.rglob("*")):
            if path.is_file():
                files[str(path.relative_to(self._folder))] = path.read_bytes()
                path.unlink()
        return files


def _place() -> list[str]:
    import ray

    node, gpus = ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()
    return [node, ",".join(map(str, gpus)), socket.gethostname()]


def digests(data: DataSet) -> list[str]:
    """What a data set is known by: what training sees, and its test images, if any."""
    return [digest(data), "" if data.test_images is None else test_digest(data)]


def facts(backend: str, device: str) -> dict[str, str]:
    """What must be the same on all hosts, and the ``machine``, which decides on last bits.

    That is empty on a host without such a device.
    """
    kind = device.partition(":")[0]
    try:
        kernels = resolve_backend(backend, kind)
    except BackendError as error:
        kernels = f"none ({error})"
    if kind == "cuda":
        machine = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    else:
        machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "pnas_fast": VERSION, "torch": str(torch.__version__), "kernels": kernels, "machine": machine,
    }  # fmt: skip
