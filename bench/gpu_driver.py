"""A kernel of CUDA C++: compiled by nvcc or NVRTC, loaded and launched by the CUDA driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

STANDARD = "-std=c++17"

DRIVER = "libcuda.so.1"

DYNAMIC_SHARED_BYTES, LOCAL_BYTES, REGISTERS = 8, 3, 4
"""The driver's numbers of a function's attributes."""


class Source(NamedTuple):
    """What is compiled.

    Attributes:
        path: of a file that defines the function ``extern "C"``.
        name: of the function.
        threads: of a block.
        shared: a block's bytes of shared memory.
        macros: that are defined.
    """

    path: Path
    name: str
    threads: int
    shared: int
    macros: dict[str, int]

    def options(self) -> list[str]:
        """What compilers are told."""
        return [STANDARD, *(f"-D{name}={value}" for name, value in self.macros.items())]


def by_nvcc(source: Source, architecture: int) -> bytes:
    """Machine code by nvcc, for 90, say.

    Raises:
        RuntimeError: it is not installed, or fails.
    """
    tool = shutil.which("nvcc")
    if tool is None:
        raise RuntimeError("not installed")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cubin"
        options = ["-cubin", f"-arch=sm_{architecture}", *source.options(), "-o", str(out)]
        done = subprocess.run([tool, *options, str(source.path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{source.path.name}: {(done.stdout + done.stderr)[-1000:]}")
        return out.read_bytes()


def nvrtc_library() -> str:
    """Where NVRTC is: with PyTorch or its CUDA libraries, else where the system looks.

    Raises:
        OSError: it is not found.
    """
    packages = Path(torch.__file__).parent.parent
    for pattern in ("nvidia/*/lib/libnvrtc*.so*", "torch/lib/libnvrtc*.so*"):
        for path in sorted(packages.glob(pattern)):
            if "builtins" not in path.name and ".alt." not in path.name:
                return str(path)
    major = (torch.version.cuda or "13").partition(".")[0]
    return f"libnvrtc.so.{major}"


def by_nvrtc(source: Source, architecture: int) -> bytes:
    """Machine code by NVRTC, for 90, say; it finds the headers beside the source.

    Raises:
        OSError: there is no such library.
        RuntimeError: it fails.
    """
    library = ctypes.CDLL(nvrtc_library())
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    headers = sorted(source.path.parent.glob("*.cuh"))
    _call(
        library, "nvrtcCreateProgram", ctypes.byref(program),
        source.path.read_bytes(), source.path.name.encode(), len(headers),
        _texts([path.read_bytes() for path in headers]), _texts([path.name.encode() for path in headers]),
    )  # fmt: skip
    try:
        options = [f"--gpu-architecture=sm_{architecture}", *source.options()]
        try:
            texts = _texts([option.encode() for option in options])
            _call(library, "nvrtcCompileProgram", program, len(options), texts)
        except RuntimeError as error:
            _call(library, "nvrtcGetProgramLogSize", program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            _call(library, "nvrtcGetProgramLog", program, log)
            words = log.value.decode(errors="replace")[-1000:]
            raise RuntimeError(f"{source.path.name}: {error}: {words}") from None
        _call(library, "nvrtcGetCUBINSize", program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        _call(library, "nvrtcGetCUBIN", program, cubin)
        return cubin.raw
    finally:
        _call(library, "nvrtcDestroyProgram", ctypes.byref(program))


def _texts(texts: Sequence[bytes]) -> Any:
    """An array of C's strings."""
    return (ctypes.c_char_p * len(texts))(*texts)


def _call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    code = getattr(library, name)(*arguments)
    if code:
        raise RuntimeError(f"{name} says {code}")


class Loaded:
    """A kernel on the card; called with a number of blocks, tensors and integers, on the current stream."""

    def __init__(self, source: Source, cubin: bytes) -> None:
        self.driver, self.source = ctypes.CDLL(DRIVER), source
        self.function, module, name = ctypes.c_void_p(), ctypes.c_void_p(), source.name.encode()
        _call(self.driver, "cuModuleLoadData", ctypes.byref(module), cubin)
        _call(self.driver, "cuModuleGetFunction", ctypes.byref(self.function), module, name)
        _call(self.driver, "cuFuncSetAttribute", self.function, DYNAMIC_SHARED_BYTES, source.shared)

    def facts(self) -> dict[str, int]:
        """Registers of a thread, its bytes in local memory, and a block's in shared memory."""
        return {
            "registers": self._attribute(REGISTERS), "local bytes": self._attribute(LOCAL_BYTES),
            "shared bytes": self.source.shared,
        }  # fmt: skip

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        _call(self.driver, "cuFuncGetAttribute", ctypes.byref(value), number, self.function)
        return value.value

    def __call__(self, blocks: int, *arguments: Tensor | int) -> None:
        """Launch it."""
        held = [
            ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else ctypes.c_int(x) for x in arguments
        ]
        addresses = (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _call(
            self.driver, "cuLaunchKernel", self.function, blocks, 1, 1, self.source.threads, 1, 1,
            self.source.shared, stream, addresses, None,
        )  # fmt: skip
