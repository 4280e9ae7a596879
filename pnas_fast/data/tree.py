"""The image files of a folder: a folder for each class, perhaps below ``train``, ``val`` and ``test``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pnas_fast.data.dataset import DataError
from pnas_fast.data.labels import sorted_names
from pnas_fast.foreign import PICTURE_SUFFIXES

PART_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""The part that a folder holds, by its name."""


class ImageFile(NamedTuple):
    """A file and the name of its class."""

    path: Path
    label: str


class Tree(NamedTuple):
    """What lies in a folder.

    Attributes:
        classes: names of the training images' folders, in order.
        parts: the files of ``train``, and where they are there ``validation`` and ``test``.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, list[ImageFile]]


_Identity = tuple[int, int]


def read_tree(root: Path) -> Tree:
    """The image files below a folder, by part and class. Hidden files and folders do not count.

    The parts are those of folders ``train``, ``val`` (``valid``, ``validation``) and ``test``, where there
    is a ``train`` with folders in it and no other folder beside them; else all images are of one part.
    Links are followed.

    Raises:
        DataError: no folder, or one that cannot be read; a class without images or fewer than two classes;
            an image beside the classes' folders; a link that leads to a folder that it lies in.
    """
    if not root.is_dir():
        raise DataError(f"{root}: is no folder, expected one with a folder of images for each class")
    above = frozenset(_identity(folder) for folder in (root, *root.resolve().parents))
    parts: dict[str, list[ImageFile]] = {}
    classes: list[str] = []
    for part, folder in _parts(root).items():
        ancestors = above if folder == root else above | {_identity(folder)}
        folders = _folders_of_classes(folder)
        parts[part] = []
        for name, inside in folders.items():
            paths = sorted(_images(inside, ancestors))
            if not paths and part == "train":
                raise DataError(f"{inside}: holds no image, looked for {' '.join(PICTURE_SUFFIXES)}")
            parts[part] += [ImageFile(path, name) for path in paths]
        if not parts[part]:
            raise DataError(f"{folder}: holds no image in a folder of a class")
        if part == "train":
            classes = list(folders)
    if len(classes) < 2:
        raise DataError(f"{root}: 1 class ({classes[0]}), allowed are 2 or more folders")
    for part, files in parts.items():
        strange = [file for file in files if file.label not in classes]
        if strange:
            raise DataError(f"{strange[0].path}: is of {part} class {strange[0].label!r}, which train lacks")
    return Tree(sorted_names(classes), parts)


def _parts(root: Path) -> dict[str, Path]:
    """The folder of each part."""
    entries = {entry.name: root / entry.name for entry in _entries(root) if _is_folder(entry)}
    is_split = "train" in entries and entries.keys() <= PART_NAMES.keys()
    if not is_split or not any(map(_is_folder, _entries(entries["train"]))):
        return {"train": root}
    found: dict[str, Path] = {}
    for name in PART_NAMES:
        if name in entries:
            part = PART_NAMES[name]
            if part in found:
                raise DataError(f"{root}: holds both {found[part].name} and {name}, allowed is one of them")
            found[part] = entries[name]
    return found


def _folders_of_classes(folder: Path) -> dict[str, Path]:
    """By the names of the classes, in order."""
    found = {}
    for entry in _entries(folder):
        path = folder / entry.name
        if _is_folder(entry):
            found[entry.name] = path
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            raise DataError(f"{path}: lies beside the folders of classes, expected in one of them")
    if not found:
        raise DataError(f"{folder}: holds no folder, expected one with images for each class")
    return {name: found[name] for name in sorted_names(found)}


def _images(top: Path, above: frozenset[_Identity]) -> Iterator[Path]:
    """The image files below a folder, in any order.

    Args:
        top: the folder.
        above: the folders that it lies in.
    """
    waiting = [(top, above)]
    while waiting:
        folder, ancestors = waiting.pop()
        identity = _identity(folder)
        if identity in ancestors:
            raise DataError(f"{folder}: is a link to a folder that it lies in")
        for entry in _entries(folder):
            if _is_folder(entry):
                waiting.append((folder / entry.name, ancestors | {identity}))
            elif os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES:
                yield folder / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, in order, but for hidden names."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be searched for images ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # of a link that leads in circles, or where nobody may look
        raise DataError(f"{entry.path}: cannot be searched for images ({error.strerror})") from error


def _identity(folder: Path) -> _Identity:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be searched for images ({error.strerror})") from error
    return status.st_dev, status.st_ino
