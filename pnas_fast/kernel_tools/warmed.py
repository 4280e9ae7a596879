"""What was compiled before: a search that goes on need not list its kernels again, for half a minute."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import torch
import triton

import pnas_fast.kernels
import pnas_fast.network
import pnas_fast.space

_KERNELS = Path(pnas_fast.kernels.__file__).parent
_FOLDERS = (_KERNELS, Path(__file__).parent, Path(pnas_fast.network.__file__).parent)


def mark_of(children: object, architecture: int) -> Path:
    """The file that says that all kernels of some children were compiled; it lies among them.

    Its name holds all that decides what they are: the children, the compute capability, the versions of
    PyTorch and Triton, and the sources of kernels and networks. Without Triton's cache it is gone too.
    """
    decides = repr((children, architecture, torch.__version__, triton.__version__, _sources()))
    name = hashlib.sha256(decides.encode()).hexdigest()
    return Path(triton.knobs.cache.dir) / f"pnas_fast-{name}"


@cache
def _sources() -> str:
    files = [Path(pnas_fast.space.__file__), *(file for folder in _FOLDERS for file in folder.rglob("*.py"))]
    tiles = _KERNELS.rglob("*.json")
    texts = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in (*files, *tiles)]
    return " ".join(sorted(texts))
