"""The kinds of data sets that a text can name: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pnas_fast.data.arrays import ARRAYS
from pnas_fast.data.cifar10 import Cifar10
from pnas_fast.data.cifar100 import Cifar100
from pnas_fast.data.dataset import DataError
from pnas_fast.data.digits import Digits
from pnas_fast.data.download import Progress
from pnas_fast.data.fashion import Fashion
from pnas_fast.data.folder import Folder, Pictures
from pnas_fast.data.idx import Idx
from pnas_fast.data.imagefolder import ImageFolder
from pnas_fast.data.numpy_files import Npy, Npz
from pnas_fast.data.shards import WebDataset
from pnas_fast.data.synthetic import Synthetic
from pnas_fast.protocols import DataSource


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data set.

    Attributes:
        form: how it is written, such as ``cifar10:DIR``.
        make: from (argument, whether to download, progress of the download), and by its name ``pictures``
            where it is of them, ``say`` where it is of arrays. The argument is what follows the colon, empty
            where there is none.
        fetched: what a download fetches, with its size, for people; empty where there is none.
        of_pictures: whether it is made of image files, which need be decoded.
        of_arrays: whether it is made of arrays in files, of whatever size.
    """

    form: str
    make: Callable[..., DataSource]
    fetched: str = ""
    of_pictures: bool = False
    of_arrays: bool = False


KINDS: dict[str, Kind] = {
    "digits": Kind("digits", lambda argument, download, progress: Digits()),
    "fashion": Kind("fashion", lambda argument, download, progress: Fashion()),
    "cifar10": Kind("cifar10:DIR", Cifar10, Cifar10.FETCHED),
    "cifar100": Kind(Cifar100.FORM, Cifar100, Cifar100.FETCHED),
    "npz": Kind(Npz.FORM, lambda argument, download, progress, say: Npz(argument, say), of_arrays=True),
    "npy": Kind(Npy.FORM, lambda argument, download, progress, say: Npy(argument, say), of_arrays=True),
    "idx": Kind(Idx.FORM, lambda argument, download, progress, say: Idx(argument, say), of_arrays=True),
    "folder": Kind(
        Folder.FORM,
        lambda argument, download, progress, pictures: Folder(argument, pictures),
        of_pictures=True,
    ),
    "imagefolder": Kind(
        ImageFolder.FORM,
        lambda argument, download, progress, pictures: ImageFolder(argument, pictures),
        of_pictures=True,
    ),
    "webdataset": Kind(
        WebDataset.FORM,
        lambda argument, download, progress, pictures: WebDataset(argument, pictures),
        of_pictures=True,
    ),
    "synthetic": Kind("synthetic:HxWxC/CLASSES", lambda argument, download, progress: Synthetic(argument)),
}
"""By what is written before the colon."""


def source(
    spec: str,
    *,
    download: bool = False,
    progress: Progress | None = None,
    pictures: Pictures | None = None,
) -> DataSource:
    """Where the data set that a text names comes from; nothing is read yet.

    Args:
        spec: one of `forms`.
        download: fetch it, when it is opened, where its files are not all there.
        progress: called with (bytes done, bytes in all) while downloading.
        pictures: how image files become a data set, for kinds that are made of them; its ``say`` is told of
            arrays in files too.

    Raises:
        DataError: no such data set, a malformed argument, or a size of images that have one already.
    """
    name, colon, argument = spec.partition(":")
    if spec == ARRAYS:
        raise DataError(
            f"data {spec!r} are arrays of a Python program, which only that program can give; "
            f"allowed are {forms()}"
        )
    kind = KINDS.get(name)
    if kind is None or (":" in kind.form) != bool(colon):
        raise DataError(f"data {spec!r} is unknown, allowed are {forms()}")
    pictures = pictures or Pictures()
    if kind.of_pictures:
        return kind.make(argument, download, progress, pictures=pictures)
    if pictures.size:
        takers = ", ".join(kind.form for kind in KINDS.values() if kind.of_pictures)
        raise DataError(f"--image-size {pictures.size} with data {spec!r}: it is an option of {takers}")
    if kind.of_arrays:
        return kind.make(argument, download, progress, say=pictures.say)
    return kind.make(argument, download, progress)


def forms() -> str:
    """How data sets are written, for people: ``digits, cifar10:DIR and …``."""
    *most, last = (kind.form for kind in KINDS.values())
    return f"{', '.join(most)} and {last}"


def fetchable() -> str:
    """What can be fetched, for people: ``CIFAR-10 (162 MiB)``."""
    return ", ".join(kind.fetched for kind in KINDS.values() if kind.fetched)
