"""A data set of streamed images: order, split, shape and statistics without decoding them all.

All sources of streams end here, as others end in `pnas_fast.data.parts`. What those take from pixels is taken
from names and sizes of files here, for an order, or from a sample, for mean, std and the images' shape.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Generator, Mapping
from contextlib import closing
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pnas_fast.data.dataset import SPLIT_SEED, DataError, DataSet, Images, statistics, usual_padding
from pnas_fast.data.folder import Pictures, cache_folder, skipped
from pnas_fast.data.labels import Labels, numbered
from pnas_fast.data.order import Places, stratified
from pnas_fast.data.parts import split_off
from pnas_fast.data.source import Description, Source, described
from pnas_fast.data.streamed import FILE, START, WORD, FileNames, Rows, Streamed
from pnas_fast.files import write_text
from pnas_fast.foreign import silence

if TYPE_CHECKING:
    from pnas_fast.pictures import PictureError

SAMPLE = 1024
"""Training images that mean, std and shape are taken from: the first in order, which is random."""

SAMPLE_BYTES = 2**28
"""Large images are fewer: so many bytes of pixels."""

_KEY = SPLIT_SEED.to_bytes(8, "big")


class Records(NamedTuple):
    """Images of a part: rows (n, 4) of a `Streamed`, in any order, and labels (n,) as text."""

    rows: Rows
    labels: Labels


class Listing(NamedTuple):
    """What a source has found without decoding anything.

    Attributes:
        names: of the files.
        classes: in order.
        parts: ``train``, and where they are there ``validation`` and ``test``.
        state: what tells these files from changed ones: names, sizes and times.
    """

    names: FileNames
    classes: tuple[str, ...]
    parts: Mapping[str, Records]
    state: bytes


def word(name: str, size: int) -> int:
    """What an image is known by: a keyed digest of its name and its number of bytes, as an int64."""
    digest = hashlib.blake2b(f"{name}\0{size}".encode(errors="surrogateescape"), digest_size=8, key=_KEY)
    return int.from_bytes(digest.digest(), "big", signed=True)


class StreamSource(Source):
    """Image files that are decoded whenever they are looked at.

    Args:
        name: for people.
        pictures: how image files become a data set.
    """

    def __init__(self, name: str, pictures: Pictures) -> None:
        super().__init__(name)
        self._pictures = pictures

    def describe(self) -> Description:
        """Of the data set, a sample of which is decoded for it."""
        return described(self.open())

    @abstractmethod
    def _list(self) -> Listing:
        """Find the images."""

    def _read(self) -> DataSet:
        listing, pictures = self._list(), self._pictures
        parts = dict(listing.parts)
        if pictures.skip_unreadable:
            refused = self._refused(listing)
            parts = {part: _without(records, refused.get(part, {})) for part, records in parts.items()}
            said = [text for each in refused.values() for text in each.values()]
            for line in skipped(said, sum(len(records.rows) for records in listing.parts.values())):
                pictures.say(f"{self.name}: {line}")
        return assemble_stream(self.name, listing, parts, pictures)

    def _refused(self, listing: Listing) -> dict[str, dict[int, str]]:
        """What was said of files that are no images, by their part and place; all are decoded once for it."""
        how = [version("pillow"), self._pictures.size, self.name]
        key = hashlib.blake2b(json.dumps(how).encode() + listing.state, digest_size=20).hexdigest()
        path = cache_folder(self._pictures) / f"{key}.unreadable"
        try:
            known = json.loads(path.read_bytes())
            return {
                part: {int(place): str(text) for place, text in each.items()} for part, each in known.items()
            }
        except (OSError, ValueError, AttributeError):
            pass  # not looked for yet, or damaged: it can be made again
        found = self._look_for_refused(listing)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(found))
        except OSError as error:
            raise DataError(
                f"{path.parent}: the list of unreadable files cannot be written there "
                f"({error.strerror or error}), --cache names another folder for it"
            ) from error
        return found

    def _look_for_refused(self, listing: Listing) -> dict[str, dict[int, str]]:
        found: dict[str, dict[int, str]] = {}
        done, files = 0, sum(len(records.rows) for records in listing.parts.values())
        for part, records in listing.parts.items():
            found[part] = {}
            images = Streamed(listing.names, records.rows, (1, 1, 1), self._pictures.size)
            with closing(_decoded(images, range(len(images)))) as decoded:
                for place, pixels in enumerate(decoded):
                    if isinstance(pixels, Exception):
                        found[part][place] = str(pixels)
                    done += 1
                    self._pictures.progress(done, files)
        return found


def assemble_stream(name: str, listing: Listing, parts: Mapping[str, Records], pictures: Pictures) -> DataSet:
    """A data set of listed images, each part in the order of its images' words.

    A tenth of the training images validate, of each class a share like its own, where no others do. Nothing
    is mirrored, as for other people's own images.

    Args:
        name: for people.
        listing: for names and classes.
        parts: what is left of the listing's.
        pictures: how image files become a data set.

    Raises:
        DataError: a part or a class without images; an image of the sample that is none, or of another size.
    """
    ordered: dict[str, tuple[Rows, Places]] = {}
    for part, (rows, labels) in parts.items():
        if not len(rows):
            raise DataError(f"{name}: no file of its {part} part is an image")
        targets = numbered(f"{name}: {part}", labels, listing.classes)
        order = np.lexsort((rows[:, START], rows[:, FILE], rows[:, WORD]))
        ordered[part] = rows[order], targets[order]
    rows, targets = ordered["train"]
    lost = np.flatnonzero(np.bincount(targets, minlength=len(listing.classes)) == 0)
    if len(lost):
        raise DataError(f"{name}: no file of class {listing.classes[lost[0]]!r} is an image")
    if "validation" not in ordered:
        if len(rows) < 2:
            raise DataError(f"{name}: 1 image to train and validate on, allowed are 2 or more")
        held = split_off(len(rows))
        split = stratified(targets, held)
        ordered["train"], ordered["validation"] = (
            (rows[where], targets[where]) for where in (split[:-held], split[-held:])
        )
    sample = _sample(Streamed(listing.names, ordered["train"][0], (1, 1, 1), pictures.size))
    height, width, channels = sample.shape[1:]
    mean, std = statistics(sample)
    made = {
        part: (
            Streamed(listing.names, rows, (channels, height, width), pictures.size, pictures.loaders),
            torch.from_numpy(targets),
        )
        for part, (rows, targets) in ordered.items()
    }
    test_images, test_labels = made.get("test", (None, None))
    return DataSet(
        name,
        len(listing.classes),
        *made["train"],
        *made["validation"],
        mean,
        std,
        usual_padding(height, width),
        False,
        test_images,
        test_labels,
        listing.classes,
    )


def _sample(images: Streamed) -> Images:
    """The first images as they are, grey ones among coloured ones in colour: uint8 (n, H, W, C)."""
    from pnas_fast.pictures import PictureError

    few = range(min(SAMPLE, len(images)))
    found: list[Images] = []
    with closing(_decoded(images, few)) as decoded:
        for place, pixels in enumerate(decoded):
            if isinstance(pixels, PictureError):
                raise DataError(f"{pixels}; --skip-unreadable leaves such files out") from pixels
            if found and pixels.shape[:2] != found[0].shape[:2]:
                height, width = pixels.shape[:2]
                raise DataError(
                    f"{images.name(place)}: {width}x{height} pixels, {images.name(0)} has "
                    f"{found[0].shape[1]}x{found[0].shape[0]}: --image-size makes all images one size"
                )
            found.append(pixels)
            if len(found) * pixels.nbytes >= SAMPLE_BYTES:
                break
    channels = max(pixels.shape[2] for pixels in found)
    return np.stack([np.broadcast_to(pixels, (*pixels.shape[:2], channels)) for pixels in found])


def _decoded(images: Streamed, places: range) -> Generator[Images | PictureError]:
    """Images as they are, or why they are none."""
    from PIL import Image

    from pnas_fast.data.decoding import in_order

    with silence():
        Image.init()  # before there are processes that would all do it
        yield from in_order(places, images.raw, images.name)


def _without(records: Records, refused: Mapping[int, str]) -> Records:
    kept = np.setdiff1d(np.arange(len(records.rows)), list(refused))
    return Records(records.rows[kept], records.labels[kept])
