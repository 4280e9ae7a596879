"""Compiling a launch ahead of time, without a card, and reading what the machine code uses."""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import torch

from pnas_fast.kernels.triton._triton_internals import MockTensor, build_elsewhere, cuobjdump, name_in_cache
from pnas_fast.kernels.triton.cache_keys import settle_name
from pnas_fast.kernels.triton.launch import Launch, Pointer

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_DTYPES = {name: dtype for dtype, name in _TYPES.items()}


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
        signature: types by parameter name, tuples of them where problems have each their own.
        constants: values of compile-time constants by parameter name.
        attributes: places of what is divisible by 16: a parameter's, and within its tuple.
        options: of the compiler.
    """

    kernel: Any
    signature: dict[str, str | tuple[str, ...]]
    constants: dict[str, Any]
    attributes: tuple[tuple[int, ...], ...]
    options: dict[str, int]

    def key(self) -> Hashable:
        """Equal for variants that share machine code."""
        signature, constants = tuple(self.signature.items()), tuple(self.constants.items())
        return self.kernel.__name__, signature, constants, self.attributes, tuple(self.options.items())

    def name(self) -> str:
        """One line: kernel, type of what it reads, problems, constants, what is absent or not aligned."""
        places = list(_places(self.signature))
        kinds = [kind.lstrip("*") for _, _, kind in places if kind in ("*bf16", "*fp16")]
        words = [self.kernel.__name__.removesuffix("_kernel"), kinds[0] if kinds else "fp32"]
        problems = max(len(kind) if isinstance(kind, tuple) else 1 for kind in self.signature.values())
        words += [f"{problems} problems"] if problems > 1 else []
        for key, value in self.constants.items():
            words.append(f"no {key}" if value is None else f"{key}={int(value)}")
        for place, key, kind in places:
            aligned = place in self.attributes
            if kind.startswith("*") != aligned and kind != "fp32" and (aligned or kind.startswith("*")):
                words.append(f"{key} {'divisible' if aligned else 'unaligned'}")
        return " ".join(words)

    def values(self) -> dict[str, Any]:
        """What `variant_from` makes this of, as JSON values."""
        where = {"module": self.kernel.module, "kernel": self.kernel.__name__}
        return where | {name: getattr(self, name) for name in self._fields[1:]}

    def build(self, architecture: int) -> Any:
        """Compile for a compute capability, 90 for sm_90, into Triton's cache, where a launch finds it.

        Triton's own launching code does it, with stand-ins for driver and tensors: the name in the cache
        holds what that code makes of arguments, empty attributes too, and versions differ in this.
        """
        settle_name(self.kernel)
        given = [
            self._argument(index, self.signature[parameter.name])
            for index, parameter in enumerate(self.kernel.params)
        ]
        return build_elsewhere(self.kernel, given, self.options, architecture)

    def name_in_cache(self, architecture: int, *, neutral: bool = False) -> str:
        """The name under which `build` looks into Triton's cache; ``neutral``: of any installation's."""
        return name_in_cache(lambda: self.build(architecture), neutral=neutral)

    def compile(self, architecture: int) -> Resources:
        """Compile as `build` does; what the machine code uses."""
        compiled = self.build(architecture)
        registers, local = _usage(compiled.asm["cubin"])
        return Resources(registers, local, compiled.metadata.shared)

    def _argument(self, index: int, kind: str | tuple[str, ...]) -> Any:
        """Something that a launch would specialise as this variant."""
        if isinstance(kind, tuple):
            return tuple(_example(own, (index, place) in self.attributes) for place, own in enumerate(kind))
        if kind == "constexpr":
            return self.constants[self.kernel.params[index].name]
        return _example(kind, (index,) in self.attributes)


class _Unaligned(MockTensor):  # type: ignore[misc]
    """Triton's stand-in for a tensor, at an address that 16 does not divide."""

    @staticmethod
    def data_ptr() -> int:
        """The address."""
        return 8


def _example(kind: str, divisible: bool) -> Any:
    """Of a type, an argument that is divisible by 16 or not, and not 1, which would be a constant."""
    if kind.startswith("*"):
        return (MockTensor if divisible else _Unaligned)(_DTYPES[kind])
    if kind == "fp32":
        return 0.5
    return 16 if divisible else 17


def variant_from(values: dict[str, Any]) -> Variant:
    """The variant of `Variant.values`, in which JSON has made lists of tuples."""
    kernel = getattr(importlib.import_module(values["module"]), values["kernel"])
    signature = {
        name: kind if isinstance(kind, str) else tuple(kind) for name, kind in values["signature"].items()
    }
    attributes = tuple(map(tuple, values["attributes"]))
    return Variant(kernel, signature, values["constants"], attributes, values["options"])


def variant_of(launch: Launch) -> Variant:
    """The specialisation that a launch asks for."""
    signature: dict[str, str | tuple[str, ...]] = {}
    constants: dict[str, Any] = {}
    attributes: list[tuple[int, ...]] = []
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if isinstance(value, tuple):
            signature[parameter.name] = tuple(map(_type, value))
            attributes += [(index, place) for place, own in enumerate(value) if own.aligned]
            continue
        fixed = parameter.is_constexpr or value is None
        if not parameter.do_not_specialize:
            fixed = fixed or (type(value) is int and value == 1)
            if not fixed and _divisible(value):
                attributes.append((index,))
        signature[parameter.name] = "constexpr" if fixed else _type(value)
        if fixed:
            constants[parameter.name] = value
    return Variant(launch.kernel, signature, constants, tuple(attributes), launch.options)


def _places(
    signature: dict[str, str | tuple[str, ...]],
) -> Iterator[tuple[tuple[int, ...], str, str]]:
    """Each parameter, and each entry of those that are tuples: its place, name, type."""
    for index, (name, kind) in enumerate(signature.items()):
        if isinstance(kind, str):
            yield (index,), name, kind
        else:
            yield from (((index, place), name, own) for place, own in enumerate(kind))


def _divisible(value: Any) -> bool:
    if isinstance(value, Pointer):
        return value.aligned
    return type(value) is int and value % 16 == 0


def _type(value: Any) -> str:
    if isinstance(value, Pointer):
        return _TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def disassemble(cubin: bytes) -> str:
    """Machine code as text, by the tool in Triton's wheel."""
    return _cuobjdump(cubin, "-sass")


def _cuobjdump(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(cuobjdump()), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _usage(cubin: bytes) -> tuple[int, int]:
    text = _cuobjdump(cubin, "--dump-resource-usage")
    registers, stack, local = (
        int(re.findall(rf"\b{name}:(\d+)", text)[-1]) for name in ("REG", "STACK", "LOCAL")
    )
    return registers, stack + local
