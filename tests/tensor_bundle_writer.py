"""Writing TensorFlow's checkpoint format, version 2: an index in LevelDB's table format and one shard.

Written from the format's description and checked by hand: TensorFlow 2.21 reads what this writes.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
MAGIC = 0xDB4775248B80FB57
RESTART_EVERY = 16


def crc32c(data: bytes) -> int:
    """Bit by bit, from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return (rotated + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(array: npt.NDArray[np.generic], offset: int, checksum: int = 0, extra: bytes = b"") -> bytes:
    """BundleEntryProto."""
    shape = b"".join(message(2, number(1, size)) for size in array.shape)
    return (
        number(1, TYPES[array.dtype.name])
        + message(2, shape)
        + number(4, offset)
        + number(5, array.nbytes)
        + varint(6 << 3 | 5)
        + struct.pack("<I", checksum)
        + extra
    )


def header(shards: int = 1, endianness: int = 0) -> bytes:
    """BundleHeaderProto."""
    return number(1, shards) + number(2, endianness) + message(3, number(1, 1))


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    out, restarts, last = bytearray(), [], b""
    for index, (key, value) in enumerate(pairs):
        shared = 0
        if index % RESTART_EVERY == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(pairs: list[tuple[bytes, bytes]], block_pairs: int, compression: int = 0) -> bytes:
    out = bytearray()

    def append(content: bytes) -> bytes:
        handle = varint(len(out)) + varint(len(content))
        out.extend(content)
        out.append(compression)
        out.extend(struct.pack("<I", masked(crc32c(content + bytes([compression])))))
        return handle

    groups = [pairs[start : start + block_pairs] for start in range(0, len(pairs), block_pairs)]
    index = [(group[-1][0], append(block(group))) for group in groups]
    footer = append(block([])) + append(block(index))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def write_bundle(
    prefix: Path,
    tensors: dict[str, npt.NDArray[np.generic]],
    *,
    block_pairs: int = 40,
    checksums: bool = False,
) -> None:
    """``PREFIX.index`` and its one shard; checksums of tensors take long, and are not read."""
    pairs, data = [(b"", header())], bytearray()
    for name in sorted(tensors, key=str.encode):
        array = np.array(tensors[name], order="C")
        numbers = array.tobytes()
        checksum = masked(crc32c(numbers)) if checksums else 0
        pairs.append((name.encode(), entry(array, len(data), checksum)))
        data += numbers
    prefix.with_name(prefix.name + ".index").write_bytes(table(pairs, block_pairs))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
