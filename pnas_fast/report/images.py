"""The images that children were trained on, and how well each class is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pnas_fast.data.augmentation import in_words
from pnas_fast.evaluation.train import recall_name
from pnas_fast.report.section import Section
from pnas_fast.report.text import is_known
from pnas_fast.report.view import RunView
from pnas_fast.runs.choice import Finalist

MOST_CLASSES = 200
"""Classes that have a row; of more, those that are recognised worst."""


class ClassRow(NamedTuple):
    """A class: its name, its images of each part, and its recalls by the heads of their columns."""

    name: str
    images: tuple[int, ...]
    recalls: Mapping[str, float]


def images_section(view: RunView) -> list[Section]:
    """The section; none where the run does not say what its images are."""
    images, config = view.record.images, view.record.config
    if images is None:
        return []
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    parts = {name: counts for name, counts in parts.items() if counts}
    chosen = view.choice.chosen if view.choice else None
    rows = [
        ClassRow(name, tuple(counts[number] for counts in parts.values()), _recalls(chosen, number))
        for number, name in enumerate(images.names)
    ]
    heads = [head for head in _HEADS if any(head in row.recalls for row in rows)]
    if heads:
        rows.sort(key=lambda row: row.recalls.get(heads[-1], 2.0))
    height, width = images.image_shape[1:]
    cutout = config.get("cutout", 0)
    values: dict[str, Any] = {
        "size": f"{width}×{height}",
        "parts": list(parts),
        "rows": rows[:MOST_CLASSES],
        "left": len(rows) - MOST_CLASSES,
        "heads": heads,
        "chosen": chosen,
        "unbalanced": images.is_unbalanced,
        "weighted": config.get("class_weights", "none") != "none",
        "augmentation": in_words(images.crop_padding, images.flip, cutout if isinstance(cutout, int) else 0)
        if config.get("evaluator", "train") == "train"
        else "",
        "scores": [] if chosen is None else _scores(chosen),
    }
    return [Section("images", "Images and classes", values)]


_HEADS = {"recall": "", "test recall": "test_"}
"""Columns of recalls, and how the names of their values begin."""


def _recalls(chosen: Finalist | None, number: int) -> dict[str, float]:
    """The means of a class's recalls over the chosen cell's final trainings, where they are known."""
    if chosen is None:
        return {}
    found = {head: chosen.mean(recall_name(part, number)) for head, part in _HEADS.items()}
    return {head: mean for head, mean in found.items() if is_known(mean)}


def _scores(chosen: Finalist) -> list[tuple[str, float, float]]:
    """Of each part of the images the chosen cell's accuracy and balanced accuracy, where both are known."""
    names = {"validation": "", "test": "test_"}
    found = [
        (name, chosen.mean(f"{part}accuracy"), chosen.mean(f"{part}balanced_accuracy"))
        for name, part in names.items()
    ]
    return [row for row in found if all(map(is_known, row[1:]))]
