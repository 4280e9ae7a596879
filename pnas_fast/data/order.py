"""The order of images and who validates: decided by what images show, not by where they lie in a file."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from pnas_fast.data.dataset import SPLIT_SEED, Images

Places = npt.NDArray[np.int64]

_KEY = SPLIT_SEED.to_bytes(8, "big")


def seeded_order(images: Images, labels: npt.NDArray[np.int64]) -> Places:
    """A fixed random order of images: that of digests of their pixels, keyed by the seed of all splits.

    It is the same however the images were stored and sorted before. Equal images follow one another by
    their labels, so what is left to chance is indistinguishable.

    Args:
        images: uint8 (n, H, W, C).
        labels: (n,).

    Returns:
        (n,): which image comes first, which second, ….
    """
    words = np.empty(len(images), np.uint64)
    for place, image in enumerate(images):
        pixels = image if image.flags.c_contiguous else image.copy()
        digest = hashlib.blake2b(pixels, digest_size=8, key=_KEY).digest()
        words[place] = int.from_bytes(digest, "big")
    return np.lexsort((labels, words)).astype(np.int64)


def stratified(labels: npt.NDArray[np.int64], validation: int) -> Places:
    """An order in which the last images validate, of each class a share of them like its own.

    Shares are Webster's (Sainte-Laguë): the ``r``-th of the ``n`` images of a class has the rank
    ``(r + 1/2) / n``, and those of the least ranks validate. Inside each part the order stays.

    Args:
        labels: (n,), in a random order.
        validation: how many validate.
    """
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    ranks = np.empty(len(labels))
    within = np.arange(len(labels)) - np.repeat(starts, counts)
    ranks[by_class] = (within + 0.5) / np.repeat(counts, counts)
    validates = np.zeros(len(labels), bool)
    validates[np.argsort(ranks, kind="stable")[:validation]] = True
    return np.argsort(validates, kind="stable").astype(np.int64)


def rearrange(rows: npt.NDArray[np.uint8], order: Places) -> None:
    """Put rows into an order in place, so that no second copy of a large array is needed."""
    done = np.zeros(len(order), bool)
    for start in range(len(order)):
        if done[start] or order[start] == start:
            continue
        first, place = rows[start].copy(), start
        while (source := int(order[place])) != start:
            rows[place] = rows[source]
            done[place] = True
            place = source
        rows[place] = first
        done[place] = True
