"""Images in shards, as the webdataset package writes them: tar archives of ``KEY.jpg`` and ``KEY.cls``.

Where each image lies in its shard is looked up once, by the archives' headers; from then on images are read
in any order, as those of folders are. So an epoch is a whole permutation and begins at any batch, which the
package's own readers, that go through shards from end to end, can do neither of.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby, product
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pnas_fast.data.array_files import place
from pnas_fast.data.dataset import DataError
from pnas_fast.data.folder import Pictures
from pnas_fast.data.labels import class_names
from pnas_fast.data.parts import PARTS
from pnas_fast.data.stream import Listing, Records, StreamSource, word
from pnas_fast.data.streamed import FileNames
from pnas_fast.data.tree import PART_NAMES
from pnas_fast.foreign import PICTURE_SUFFIXES, reason

SUFFIX = ".tar"

LABEL = ".cls"

MOST_SHARDS = 1_000_000

LONGEST_LABEL = 1024

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_END = bytes(512)


class Member(NamedTuple):
    """An image of a shard: its file's name, where it begins and of how many bytes it is, and its class."""

    name: str
    start: int
    size: int
    label: str


class WebDataset(StreamSource):
    """Shards as a source of streams.

    Args:
        argument: a folder of shards, or their names with braces.
        pictures: how their images become a data set.

    Raises:
        DataError: nothing is named.
    """

    FORM = "webdataset:DIR"

    def __init__(self, argument: str, pictures: Pictures) -> None:
        super().__init__(f"webdataset:{argument}", pictures)
        self._place = place(self.name, argument, self.FORM)

    def _list(self) -> Listing:
        shards = _shards(self._place)
        found: dict[str, tuple[list[tuple[int, int, int, int]], list[str]]] = {}
        times = []
        for number, (path, part) in enumerate(shards):
            times.append(os.stat(path).st_mtime_ns)
            rows, labels = found.setdefault(part, ([], []))
            for member in read_shard(path):
                known = word(f"{path.name}/{member.name}", member.size)
                rows.append((number, member.start, member.size, known))
                labels.append(member.label)
        parts = {
            part: Records(np.array(rows, np.int64), np.array(labels))
            for part, (rows, labels) in found.items()
        }
        classes = class_names(self.name, [parts[part].labels for part in PARTS[:2] if part in parts])
        names = FileNames.of(path.absolute() for path, _ in shards)
        state = np.array(times).tobytes() + b"".join(records.rows.tobytes() for records in parts.values())
        return Listing(names, classes, parts, state)


def expand(pattern: str) -> list[str]:
    """What a shell makes of braces: ``{a,b}`` is each, ``{000..146}`` is all numbers, as wide as the first.

    Raises:
        DataError: more names than anybody has shards.
    """
    pieces = _BRACES.split(pattern)  # text, inside of braces, text, …
    choices = [_choices(text) if odd % 2 else [text] for odd, text in enumerate(pieces)]
    if np.prod([float(len(each)) for each in choices]) > MOST_SHARDS:
        raise DataError(f"{pattern}: names more than {MOST_SHARDS:,} shards")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(text: str) -> list[str]:
    match = _RANGE.fullmatch(text)
    if match is None:
        return text.split(",")
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    if len(numbers) > MOST_SHARDS:
        raise DataError(f"{{{text}}}: names more than {MOST_SHARDS:,} shards")
    return [f"{number:0{len(first)}}" for number in numbers]


def read_shard(path: Path) -> Iterator[Member]:
    """The images of a shard, by its headers; what they show is not read.

    Raises:
        DataError: it is no whole tar archive, or holds no image; an image has no class, a class no image.
    """
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as file:
            found = False
            for key, members in groupby(_files(path, archive), _key):
                found = True
                yield _sample(path, key, {_ending(member): member for member in members}, file)
            file.seek(archive.offset)
            if file.read(len(_END)) != _END:
                raise DataError(f"{path}: is damaged or cut short: a whole archive ends with zeros")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is no whole tar archive, or a compressed one ({reason(error)})") from error
    if not found:
        raise DataError(f"{path}: holds no image, looked for {' '.join(PICTURE_SUFFIXES)}")


def _files(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The archive's regular files; it remembers none of them."""
    length = os.stat(path).st_size
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        if member.offset_data + member.size > length:
            raise DataError(f"{path}: is cut short in {member.name}")
        if member.isreg() and not os.path.basename(member.name).startswith("."):
            yield member


def _key(member: tarfile.TarInfo) -> str:
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _ending(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix(_key(member)).lower()


def _sample(path: Path, key: str, files: Mapping[str, tarfile.TarInfo], archive: BinaryIO) -> Member:
    images = [ending for ending in files if ending in PICTURE_SUFFIXES]
    if len(images) != 1:
        which = " and ".join(images) or "no image"
        raise DataError(f"{path}: {key} has {which}, allowed is one of {' '.join(PICTURE_SUFFIXES)}")
    image, label = files[images[0]], files.get(LABEL)
    if label is None:
        raise DataError(f"{path}: {key} has no {LABEL}, which says the class of {image.name}")
    archive.seek(label.offset_data)
    text = archive.read(min(label.size, LONGEST_LABEL + 1)).strip()
    if not 1 <= len(text) <= LONGEST_LABEL:
        raise DataError(f"{path}: {label.name} is of {label.size} bytes, allowed is the name of a class")
    try:
        return Member(image.name, image.offset_data, image.size, text.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {label.name} is no text in UTF-8 ({error.reason})") from error


def _shards(place: Path) -> list[tuple[Path, str]]:
    """All shards in order, with the part of each."""
    if place.is_dir():
        inside = [place, *(place / name for name in PART_NAMES)]
        paths = sorted(path for folder in inside for path in folder.glob(f"*{SUFFIX}"))
        if not paths:
            raise DataError(f"{place}: holds no shard, looked for *{SUFFIX}")
    else:
        paths = [Path(name) for name in expand(str(place))]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{missing[0]}: is no file, expected a shard")
    top = Path(os.path.commonpath([path.parent for path in paths]))
    parts = [_part(path.relative_to(top)) for path in paths]
    if "train" not in parts:
        parts = ["train"] * len(parts)
    unsaid = [path for path, part in zip(paths, parts, strict=True) if part is None]
    if unsaid:
        raise DataError(f"{unsaid[0]}: is of no part, expected a name with one of {' '.join(PART_NAMES)}")
    return [(path, part) for path, part in zip(paths, parts, strict=True) if part is not None]


def _part(path: Path) -> str | None:
    """The part that a shard's name says, such as ``imagenet-val-000.tar`` or ``val/000.tar``."""
    words = re.split(r"[^a-z]+", str(path).lower())
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), None)
