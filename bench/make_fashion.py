"""Make the bundled part of Fashion-MNIST from the four files of the whole: `pnas_fast/data/fashion.py`.

    python bench/make_fashion.py /usr/share/datasets/fashion-mnist

Training and validation images are the first of each class in the training file, test images the first of
each class in the test file, so that nobody's test image is anybody's training image. Debian's package
``dataset-fashion-mnist`` holds the four files.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pnas_fast.data import fashion
from pnas_fast.files import replacing

Bytes = npt.NDArray[np.uint8]
SEED = 20170828
"""Of the order of images within a part."""


def read(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """Images (n, 28, 28) and labels (n,) of ``train`` or ``t10k``."""
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"{part}-{name}.gz").read_bytes()), np.uint8)
        for name in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return images[16:].reshape(-1, 28, 28), labels[8:]


def halved(images: Bytes) -> Bytes:
    """The mean of 2×2 pixels, rounded, halves up."""
    sums: npt.NDArray[np.int64] = images.reshape(-1, 14, 2, 14, 2).sum((2, 4), dtype=np.int64)
    return ((sums + 2) // 4).astype(np.uint8)


def places(labels: Bytes, first: int, count: int) -> npt.NDArray[np.intp]:
    """Where ``count`` images lie, of each class as many, after the ``first`` ones, in a random order."""
    each, start = count // fashion.CLASSES, first // fashion.CLASSES
    found = [np.flatnonzero(labels == label)[start : start + each] for label in range(fashion.CLASSES)]
    return np.random.RandomState(SEED).permutation(np.concatenate(found))


def main(folder: Path) -> None:
    """Write ``fashion.npz`` where the package looks for it."""
    (images, labels), (test_images, test_labels) = read(folder, "train"), read(folder, "t10k")
    train = places(labels, 0, fashion.TRAIN_IMAGES)
    validation = places(labels, fashion.TRAIN_IMAGES, fashion.VALIDATION_IMAGES)
    test = places(test_labels, 0, fashion.TEST_IMAGES)
    pixels = halved(np.concatenate([images[train], images[validation], test_images[test]]))
    answers = np.concatenate([labels[train], labels[validation], test_labels[test]])
    with replacing(fashion.FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=pixels, labels=answers)
    print(f"{fashion.FILE}: {len(pixels):,} images, {fashion.FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
