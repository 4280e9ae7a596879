"""TensorFlow's checkpoint format, against a writer of its own; damaged files are refused."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnas_fast.zoo import ZooError
from pnas_fast.zoo.tensor_bundle import TensorBundle
from tensor_bundle_writer import TYPES, crc32c, entry, header, message, table, write_bundle

Arrays = dict[str, npt.NDArray[np.generic]]


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    names = draw(st.sets(st.text("abc/_1", min_size=1, max_size=12), min_size=1, max_size=60))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    found: Arrays = {}
    for name in sorted(names):
        shape = draw(st.lists(st.integers(0, 300), max_size=2))
        found[name] = generator.normal(0, 99, shape).astype(draw(st.sampled_from(sorted(TYPES))))
    return found


def write(tensors: Arrays, folder: Path, block_pairs: int = 40) -> TensorBundle:
    write_bundle(folder / "model.ckpt", tensors, block_pairs=block_pairs)
    return TensorBundle(folder / "model.ckpt")


@settings(max_examples=25, deadline=None)
@given(arrays(), st.integers(1, 40))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: Arrays, block_pairs: int
) -> None:
    bundle = write(tensors, tmp_path_factory.mktemp("bundle"), block_pairs)
    assert set(bundle.entries) == set(tensors)
    for name, array in tensors.items():
        read = bundle.read(name)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_the_writers_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720's CRC


EXAMPLE: Arrays = {f"layer_{index}/weights": np.arange(index, dtype=np.float32) for index in range(50)}


def index_of(folder: Path) -> bytes:
    write(EXAMPLE, folder)
    return (folder / "model.ckpt.index").read_bytes()


def refusal(index: bytes, folder: Path) -> str:
    (folder / "model.ckpt.index").write_bytes(index)
    with pytest.raises(ZooError) as caught:
        TensorBundle(folder / "model.ckpt")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_index_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    for length in [*range(0, len(index), 37), len(index) - 1]:
        assert "not a whole index" in refusal(index[:length], tmp_path)
        assert "not a whole index" in refusal(index[len(index) - length :], tmp_path)


def test_any_changed_byte_of_the_index_is_noticed(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    for place in range(0, len(index) - 48, 11):
        changed = bytearray(index)
        changed[place] ^= 0x10
        message = refusal(bytes(changed), tmp_path)
        assert "checksum of the block" in message or "compressed by method" in message


def test_noise_is_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for size in (0, 1, 47, 48, 1000):
        assert "not a whole index" in refusal(generator.bytes(size), tmp_path)
        assert "not a whole index" in refusal(generator.bytes(size) + index_of(tmp_path)[-48:], tmp_path)


def test_compressed_blocks_are_refused(tmp_path: Path) -> None:
    assert "compressed by method 1, allowed is none" in refusal(table([(b"", header())], 9, 1), tmp_path)


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    assert "big-endian" in refusal(table([(b"", header(endianness=1))], 9), tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry(np.zeros(3, np.float32), 4), "takes bytes 4 to 16, the file has 12"),
        (entry(np.zeros(3, np.float32), 0).replace(b"\x28\x0c", b"\x28\x08"), "takes bytes 0 to 8"),
        (entry(np.zeros(3, np.float32), 0, extra=message(7, b"")), "is in partitions"),
        (entry(np.zeros(3, np.float32), 0).replace(b"\x08\x01", b"\x08\x07", 1), "TensorFlow's type 7"),
    ],
)
def test_tensors_that_cannot_be_read_are_refused(value: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.index").write_bytes(table([(b"", header()), (b"w", value)], 9))
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(12))
    with pytest.raises(ZooError, match=message):
        TensorBundle(tmp_path / "model.ckpt").read("w")


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    bundle = write(EXAMPLE, tmp_path)
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(ZooError, match=r"model\.ckpt\.data-00000-of-00001: cannot be read"):
        bundle.read("layer_3/weights")


def test_an_index_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"model\.ckpt\.index: cannot be read"):
        TensorBundle(tmp_path / "model.ckpt")
