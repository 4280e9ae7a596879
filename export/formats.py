"""Formats of an exported network, and which one an output's name asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Format = Literal["onnx", "torch_export", "source"]

FORMATS: tuple[Format, ...] = get_args(Format)

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch_export": ".pt2", "source": ".py"}
"""Of the files' names. Only an ONNX file may be called anything else."""


def format_of(output: Path, asked: Format | None) -> Format:
    """The format that was asked for, or else the one of the output's ending, or else ONNX.

    Raises:
        ValueError: the name ends as another format's files do, or not as this one's must.
    """
    ending = output.suffix.lower()
    meant = next((known for known in FORMATS if ENDINGS[known] == ending), None)
    chosen = asked or meant or "onnx"
    if meant != chosen and (meant is not None or chosen != "onnx"):
        raise ValueError(
            f"ends in {ending or 'nothing'}, --format {chosen} writes files that end in {ENDINGS[chosen]}"
        )
    return chosen
