"""Files of CIFAR's binary versions: records of label bytes and 3,072 pixel bytes.

Those are the red, green and blue planes of a 32×32 image, row by row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pnas_fast.data.dataset import DataError, Images

IMAGE_SHAPE = (3, 32, 32)
PIXEL_BYTES = 3 * 32 * 32


def read_records(path: Path, count: int, labels: int) -> tuple[Images, npt.NDArray[np.uint8]]:
    """Images (count, H, W, C), a view of planes, and labels (count, labels) of one file.

    Args:
        path: of the file.
        count: of its records.
        labels: bytes of labels in a record.

    Raises:
        DataError: it is missing, cannot be read or has another length.
    """
    expected = count * (labels + PIXEL_BYTES)
    try:
        size = path.stat().st_size
        content = np.fromfile(path, np.uint8, expected)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected {expected:,} bytes") from error
    if size != expected or content.size != expected:
        each = f"{labels} label{'s' if labels > 1 else ''}"
        raise DataError(
            f"{path}: {size:,} bytes, expected {expected:,} "
            f"({count:,} records of {each} and {PIXEL_BYTES:,} pixel bytes)"
        )
    records = content.reshape(count, labels + PIXEL_BYTES)
    planes = records[:, labels:].reshape(count, *IMAGE_SHAPE)
    return planes.transpose(0, 2, 3, 1), records[:, :labels]


def check_range(path: Path, labels: npt.NDArray[np.uint8], classes: int) -> None:
    """Raise `DataError` for the first of a file's labels that is no class."""
    if (labels >= classes).any():
        record = int((labels >= classes).argmax())
        raise DataError(f"{path}: record {record} has label {labels[record]}, allowed are 0 to {classes - 1}")
