"""Compiled kernels in one file, for the cache of Triton on another machine.

The file is a zip archive of `MANIFEST`, which says what the kernels are and for whom, and `CODE`, the machine
code of all, one after the other, so that what is alike in them is compressed together.

Triton finds a kernel under a hash of its installation (version, every source file and its compiled library),
the kernel's source, target, options and environment. Only the compiled library differs between Pythons, and
makes the same machine code in all of them. So the file holds names in which the installation is left out, and
unpacking gives each kernel the name under which a launch here would look for it. Both are asked of Triton's
own launching code; where they do not agree, the kernel is another, and nothing is unpacked.
"""

from __future__ import annotations

import lzma
import platform
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import triton

from pnas_fast.files import replacing
from pnas_fast.kernels.triton._triton_internals import JITFunction, cached_files, installation, put_files
from pnas_fast.kernels.triton.aot import Variant, variant_from

MANIFEST, CODE = "manifest.json", "machine_code"

FORMAT = 1

MOST_BYTES = 15 * 10**6
"""Of a file."""

MOST_UNPACKED = 512 * 10**6
"""Of a manifest, and of all machine code: more is no file of ours."""

KERNELS = "pnas_fast.kernels.triton."
"""Where kernels are: a file names modules, and no other is imported for it."""


class PackError(ValueError):
    """Kernels cannot be packed, or a file of them is not for here; one line."""


class Kernel(msgspec.Struct, forbid_unknown_fields=True):
    """Of a packed kernel: `Variant.values`, its name without the installation, its file's name in Triton's
    cache, what Triton knows of it, bytes of its machine code.
    """

    variant: dict[str, Any]
    name: str
    file: str
    metadata: str
    size: int


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """What is packed, and for whom: Triton's version and the hashes of its parts, the Python that it is for
    and the one that packed it, the compute capability (90 for sm_90).
    """

    format: int
    triton: str
    installation: list[str]
    python: str
    packed_by: str
    architecture: int
    kernels: list[Kernel]


class Unpacked(NamedTuple):
    """Kernels that were put into the cache, and those that were there before."""

    put: int
    there: int


def this_python() -> str:
    """Say 3.12."""
    return ".".join(platform.python_version_tuple()[:2])


def pack(path: Path, variants: Sequence[Variant], architecture: int, python: str) -> int:
    """Write compiled kernels to a file, which is whole or not there; its bytes.

    Args:
        path: of the file.
        variants: kernels, which are in Triton's cache.
        architecture: that they were compiled for, 90 for sm_90.
        python: of the machine that they are for, say 3.12.

    Raises:
        PackError: one is not in the cache, or the file would have more than `MOST_BYTES`.
        OSError: it cannot be written.
    """
    kernels, codes = [], []
    # Alike kernels beside each other are smaller.
    for variant in sorted(variants, key=Variant.name):
        found = cached_files(variant.name_in_cache(architecture))
        if found is None:
            raise PackError(f"{variant.name()}: not in Triton's cache {triton.knobs.cache.dir}")
        neutral = variant.name_in_cache(architecture, neutral=True)
        kernels.append(Kernel(variant.values(), neutral, found.name, found.metadata, len(found.cubin)))
        codes.append(found.cubin)
    manifest = Manifest(
        FORMAT, triton.__version__, installation(), python, this_python(), architecture, kernels
    )  # fmt: skip
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr(MANIFEST, msgspec.json.encode(manifest))
            archive.writestr(CODE, b"".join(codes))
        size = temporary.stat().st_size
        if size > MOST_BYTES:
            raise PackError(f"{path}: {size:,} bytes, allowed are {MOST_BYTES:,}: pack fewer kernels")
    return size


def unpack(path: Path, architectures: Sequence[int]) -> Unpacked:
    """Put a file's kernels where launches here find them; nothing where something of the file is refused.

    Args:
        path: of a file that `pack` wrote.
        architectures: of the GPUs here; none allows every one.

    Raises:
        PackError: the file is no such file, or is for another Triton, Python or GPU, or its kernels are not
            those of the sources here.
        OSError: it cannot be read, or the cache cannot be written.
    """
    manifest, code = _read(path)
    _check(path, manifest, architectures)
    variants = [_variant(path, kernel) for kernel in manifest.kernels]
    named = [_neutral_name(variant, manifest.architecture) for variant in variants]
    others = sum(name != kernel.name for name, kernel in zip(named, manifest.kernels, strict=True))
    if others:
        raise PackError(
            f"{path}: {others} of {len(named)} kernels are of other sources, compilers or settings than here"
        )
    put = place = 0
    for kernel, variant in zip(manifest.kernels, variants, strict=True):
        name, cubin = variant.name_in_cache(manifest.architecture), code[place : place + kernel.size]
        place += kernel.size
        if cached_files(name) is None:
            put_files(name, kernel.file, kernel.metadata, cubin)
            put += 1
    return Unpacked(put, len(named) - put)


def _read(path: Path) -> tuple[Manifest, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (MANIFEST, CODE):
                if archive.getinfo(name).file_size > MOST_UNPACKED:
                    raise PackError(
                        f"{path}: no packed kernels: {name} has more than {MOST_UNPACKED:,} bytes"
                    )
            manifest = msgspec.json.decode(archive.read(MANIFEST), type=Manifest)
            code = archive.read(CODE)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise PackError(f"{path}: no packed kernels, or damaged: {_line(error)}") from error
    except (lzma.LZMAError, zlib.error, msgspec.DecodeError, ValueError) as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"{path}: no packed kernels, or damaged: {_line(error)}") from error
    sizes = [kernel.size for kernel in manifest.kernels]
    if min(sizes, default=0) < 0 or sum(sizes) != len(code):
        raise PackError(f"{path}: damaged: {len(code):,} bytes of machine code, expected {sum(sizes):,}")
    return manifest, code


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check(path: Path, manifest: Manifest, architectures: Sequence[int]) -> None:
    """Refuse what was packed for another machine."""

    def refuse(thing: str, packed: object, here: object) -> None:
        raise PackError(f"{path}: packed for {thing} {packed}, here is {here}")

    if manifest.format != FORMAT:
        refuse("format", manifest.format, FORMAT)
    if manifest.triton != triton.__version__:
        refuse("Triton", manifest.triton, triton.__version__)
    if manifest.python != this_python():
        refuse("Python", manifest.python, this_python())
    if architectures and manifest.architecture not in architectures:
        refuse("GPUs of", f"sm_{manifest.architecture}", " ".join(f"sm_{own}" for own in architectures))
    own = installation()
    differ = sum(a != b for a, b in zip(manifest.installation, own, strict=False))
    # The compiled library, where another Python packed.
    if len(own) != len(manifest.installation) or differ > int(manifest.packed_by != this_python()):
        refuse("another build of Triton", manifest.triton, f"one that differs in {max(differ, 1)} parts")


def _neutral_name(variant: Variant, architecture: int) -> str | None:
    """None where the sources here can make no such kernel at all."""
    try:
        return variant.name_in_cache(architecture, neutral=True)
    except Exception:  # whatever Triton makes of arguments that a kernel no longer has
        return None


def _variant(path: Path, kernel: Kernel) -> Variant:
    """The variant that a manifest describes.

    Raises:
        PackError: there is no such kernel in this package, or the description is none.
    """
    module, name = kernel.variant.get("module"), kernel.variant.get("kernel")
    known = isinstance(module, str) and re.fullmatch(re.escape(KERNELS) + r"[a-z_]+", module)
    if known and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,149}", kernel.file):
        try:
            variant = variant_from(kernel.variant)
            if isinstance(variant.kernel, JITFunction):
                return variant
        except (ImportError, AttributeError, KeyError, TypeError, ValueError):
            pass
    raise PackError(f"{path}: no kernel of this package: {str(name)[:100]!r} in {str(module)[:100]!r}")
