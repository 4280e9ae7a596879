"""Validation of what the surrogate is given: codes and trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, OPERATIONS, Codes

Floats = npt.NDArray[np.float64]

COLUMNS = ("in1", "op1", "in2", "op2")


class SurrogateError(ValueError):
    """Input the surrogate cannot use; the message names what was found and what is allowed."""


def check_codes(codes: Codes) -> None:
    """Raise `SurrogateError` unless ``codes`` are int8 (M, b, 4) codes of valid b-block cells."""
    if not isinstance(codes, np.ndarray) or codes.dtype != np.int8:
        found = codes.dtype if isinstance(codes, np.ndarray) else type(codes).__name__
        raise SurrogateError(f"codes are {found}, allowed is an int8 array")
    if codes.ndim != 3 or codes.shape[2] != len(COLUMNS) or not 1 <= codes.shape[1] <= MAX_BLOCKS:
        raise SurrogateError(f"codes have shape {codes.shape}, allowed is (cells, 1 to {MAX_BLOCKS}, 4)")
    if len(codes) == 0:
        return
    inputs = CELL_INPUTS + np.arange(codes.shape[1])
    limits = np.stack([inputs, np.full_like(inputs, len(OPERATIONS))] * 2, axis=1)
    if (codes.min(axis=0) < 0).any() or (codes.max(axis=0) >= limits).any():
        row, block, column = np.argwhere((codes < 0) | (codes >= limits))[0].tolist()
        raise SurrogateError(
            f"codes row {row}, block {block}: {COLUMNS[column]} is {codes[row, block, column]}, "
            f"allowed are 0 to {limits[block, column] - 1}"
        )


def check_trials(codes: Sequence[Codes], accuracies: Sequence[Floats]) -> None:
    """Raise `SurrogateError` unless the groups pair up and every accuracy is a number in [0, 1]."""
    if len(codes) != len(accuracies):
        raise SurrogateError(
            f"{len(codes)} groups of codes but {len(accuracies)} of accuracies, allowed is one each"
        )
    for index, (group, values) in enumerate(zip(codes, accuracies, strict=True)):
        check_codes(group)
        if values.shape != (len(group),):
            raise SurrogateError(
                f"accuracies of group {index} have shape {values.shape}, allowed is ({len(group)},)"
            )
        outside = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(outside):
            raise SurrogateError(
                f"accuracy {outside[0]} of group {index} is {values[outside[0]]}, allowed are 0 to 1"
            )
    if sum(map(len, codes)) == 0:
        raise SurrogateError("no trials to fit, allowed is at least one")
