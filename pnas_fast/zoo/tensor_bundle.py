"""Reading TensorFlow's checkpoints of version 2 without TensorFlow: an index beside shards of plain numbers.

``PREFIX.index`` is a sorted table in LevelDB's format: blocks of (key, value) pairs whose keys leave out what
they share with the key before; one block lists the others, and the last 48 bytes say where that one is.
Values are protocol buffers. The empty key's is a header; every other key is a tensor's name, and its value
says the type, the shape, and where in ``PREFIX.data-SHARD-of-SHARDS`` the numbers lie, little-endian, the
last axis fastest. Blocks carry a checksum, which is compared. So do tensors; theirs are not, which in Python
would take minutes. Nothing in the files is executed, and every length is checked against what is there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pnas_fast.foreign import reading
from pnas_fast.zoo.errors import ZooError

INDEX_SUFFIX = ".index"

LARGEST_INDEX = 2**24
"""Bytes of an index: that of the largest network has 0.2 MB, and a checksum takes a second a megabyte."""

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # of a block: compression, checksum
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
"""TensorFlow's number of a type that we read."""

_CRC_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed


class Entry(NamedTuple):
    """A tensor as the index describes it."""

    type: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    sliced: bool


class TensorBundle:
    """A checkpoint's tensors by name.

    Args:
        prefix: the path without ``.index``.

    Raises:
        ZooError: an index that is missing, cut off, damaged, compressed or of another format.
    """

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix
        self._path = prefix.with_name(prefix.name + INDEX_SUFFIX)
        with reading(self._path, ZooError, "cannot be read"):
            size = self._path.stat().st_size
            if size > LARGEST_INDEX:
                raise ValueError(f"{size:,} bytes, allowed are {LARGEST_INDEX:,}")
            self._index = self._path.read_bytes()
        with reading(self._path, ZooError, "not a whole index of a TensorFlow checkpoint"):
            values = dict(self._table())
            header = _fields(values.pop(b"", b""))
            self.entries = {key.decode(): _entry(value) for key, value in values.items()}
            self._shards = _number(header, 1)
            if _number(header, 2) != 0:
                raise ValueError("numbers are big-endian, allowed is little-endian")

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """A tensor's numbers.

        Raises:
            KeyError: no such tensor.
            ZooError: a type that is not read, a partitioned tensor, or a shard that is missing or cut off.
        """
        entry = self.entries[name]
        if entry.type not in _TYPES or entry.sliced:
            kind = "in partitions" if entry.sliced else f"of TensorFlow's type {entry.type}"
            raise ZooError(
                f"{self._path}: tensor {name} is {kind}, allowed are whole tensors of floats and integers"
            )
        type_ = np.dtype(_TYPES[entry.type])
        count = math.prod(entry.shape)
        shard = self._prefix.with_name(f"{self._prefix.name}.data-{entry.shard:05d}-of-{self._shards:05d}")
        with reading(shard, ZooError, "cannot be read"):
            held = shard.stat().st_size
            if entry.size != count * type_.itemsize or entry.offset + entry.size > held:
                raise ZooError(
                    f"{shard}: tensor {name} of shape {entry.shape} takes bytes {entry.offset:,} to "
                    f"{entry.offset + entry.size:,}, the file has {held:,}"
                )
            return np.fromfile(shard, type_, count, offset=entry.offset).reshape(entry.shape)

    def _table(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) pair of the index."""
        footer = self._index[-_FOOTER:]
        if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
            raise ValueError("the last bytes are not a table's")
        (offset, size), place = _handle(footer, 0)
        deque(self._block(offset, size), maxlen=0)  # blocks of other kinds, which there are none of
        (offset, size), _ = _handle(footer, place)
        for _, value in self._block(offset, size):
            (offset, size), _ = _handle(value, 0)
            yield from self._block(offset, size)

    def _block(self, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of one block; it ends in the places of keys that are whole, and how many those are."""
        block = self._index[offset : offset + size]
        trailer = self._index[offset + size : offset + size + _TRAILER]
        if len(block) < max(size, 4) or len(trailer) < _TRAILER:
            raise ValueError(f"a block of {size} bytes at {offset} goes beyond the end")
        if trailer[0] != 0:
            raise ValueError(f"compressed by method {trailer[0]}, allowed is none")
        if int.from_bytes(trailer[1:], "little") != _masked_crc(block + trailer[:1]):
            raise ValueError(f"the checksum of the block at {offset} is wrong")
        end = size - 4 * (1 + int.from_bytes(block[-4:], "little"))
        key, place = b"", 0
        while place < end:
            shared, place = _varint(block, place)
            own, place = _varint(block, place)
            length, place = _varint(block, place)
            key = key[:shared] + block[place : place + own]
            yield key, block[place + own : place + own + length]
            place += own + length


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Where a block is, (offset, size), and the place after that."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _entry(value: bytes) -> Entry:
    """The message BundleEntryProto."""
    fields = _fields(value)
    shape = fields.get(2, [b""])[-1]
    sizes = _fields(shape if isinstance(shape, bytes) else b"").get(2, [])
    dimensions = tuple(_number(_fields(size), 1) for size in sizes if isinstance(size, bytes))
    numbers = (_number(fields, field) for field in (1, 3, 4, 5))
    type_, shard, offset, size = numbers
    return Entry(type_, dimensions, shard, offset, size, sliced=7 in fields)


def _number(fields: dict[int, list[int | bytes]], field: int) -> int:
    """A field that holds a number; absent is 0."""
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} of a message is no number")
    return value


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer: numbers, and bytes for everything that has a length."""
    found: dict[int, list[int | bytes]] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                value: int | bytes
                value, place = _varint(message, place)
            case 2:
                length, place = _varint(message, place)
                value, place = message[place : place + length], place + length
            case 1 | 5 as kind:
                width = 8 if kind == 1 else 4
                value, place = int.from_bytes(message[place : place + width], "little"), place + width
            case kind:
                raise ValueError(f"a message has a field of kind {kind}")
        if place > len(message):
            raise ValueError("a message is cut off")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the least first, and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is longer than 64 bits")


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CRC_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C as tables store it, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
