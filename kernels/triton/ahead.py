"""Compiling a launch ahead of time, without a card, and reading what the machine code uses."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pnas_fast.kernels.triton.launch import Launch, Pointer

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


class Resources(NamedTuple):
    """What a kernel's machine code uses: registers a thread, bytes of local memory a thread and of
    shared memory a program.
    """

    registers: int
    local: int
    shared: int


class Variant(NamedTuple):
    """A kernel specialised as the first launch of its kind on a card would specialise it.

    Attributes:
        kernel: the jitted function.
        signature: types by parameter name.
        constants: values of compile-time constants by parameter name.
        attributes: parameters divisible by 16.
        options: of the compiler.
    """

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    attributes: tuple[int, ...]
    options: dict[str, int]

    def key(self) -> Hashable:
        """Equal for variants that share machine code."""
        signature, constants = tuple(self.signature.items()), tuple(self.constants.items())
        return self.kernel.__name__, signature, constants, self.attributes, tuple(self.options.items())

    def name(self) -> str:
        """One line: the kernel, the type of what it reads, its constants, what is absent or not aligned."""
        kinds = [kind.lstrip("*") for kind in self.signature.values() if kind in ("*bf16", "*fp16")]
        words = [self.kernel.__name__.removesuffix("_kernel"), kinds[0] if kinds else "fp32"]
        for key, value in self.constants.items():
            words.append(f"no {key}" if value is None else f"{key}={int(value)}")
        for index, (key, kind) in enumerate(self.signature.items()):
            aligned = index in self.attributes
            if kind.startswith("*") != aligned and kind != "fp32" and (aligned or kind.startswith("*")):
                words.append(f"{key} {'divisible' if aligned else 'unaligned'}")
        return " ".join(words)

    def compile(self, architecture: int) -> Resources:
        """Compile for a compute capability, 90 for sm_90."""
        attributes = {(index,): [["tt.divisibility", 16]] for index in self.attributes}
        source = ASTSource(self.kernel, self.signature, self.constants, attributes)
        target = GPUTarget("cuda", architecture, 32)
        compiled = triton.compile(source, target=target, options=dict(self.options))
        registers, local = _usage(compiled.asm["cubin"])
        return Resources(registers, local, compiled.metadata.shared)


def variant_of(launch: Launch) -> Variant:
    """The specialisation that a launch asks for."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes = []
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        fixed = parameter.is_constexpr or value is None
        if not parameter.do_not_specialize:
            fixed = fixed or (type(value) is int and value == 1)
            if not fixed and _divisible(value):
                attributes.append(index)
        signature[parameter.name] = "constexpr" if fixed else _type(value)
        if fixed:
            constants[parameter.name] = value
    return Variant(launch.kernel, signature, constants, tuple(attributes), launch.options)


def _divisible(value: Any) -> bool:
    if isinstance(value, Pointer):
        return value.aligned
    return type(value) is int and value % 16 == 0


def _type(value: Any) -> str:
    if isinstance(value, Pointer):
        return _TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def _usage(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.backends.__file__).parent / "nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (
        int(re.findall(rf"\b{name}:(\d+)", text)[-1]) for name in ("REG", "STACK", "LOCAL")
    )
    return registers, stack + local
