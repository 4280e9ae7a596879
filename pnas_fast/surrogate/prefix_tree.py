"""Candidates as a prefix tree: those of one parent share all blocks but the last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pnas_fast.space import OPERATIONS, Codes
from pnas_fast.surrogate.members import INPUTS


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some successive candidates, as int64 tensors.

    ``parents`` (P, b-1, 4) are theirs, ``parent`` (m,) says which each candidate extends and ``block``
    (m, 4) by what; ``rows`` are their indices among all candidates.
    """

    rows: slice
    parents: Tensor
    parent: Tensor
    block: Tensor


class PrefixTree:
    """The candidates of codes (M, b, 4), taken chunk by chunk.

    Candidates share a parent when they follow each other and all blocks but the last agree. That is
    read from the codes themselves, so candidates in any order are scored correctly; ordered by parent
    they are scored fast.
    """

    def __init__(self, codes: Codes, device: torch.device) -> None:
        self._codes = codes
        self._device = device
        self._parent = np.cumsum(_run_starts(codes[:, :-1])) - 1

    def chunk(self, start: int, rows: int) -> Chunk:
        """The chunk of the at most ``rows`` candidates from ``start`` on."""
        part = slice(start, min(start + rows, len(self._codes)))
        here = self._parent[part] - self._parent[start]
        starts = start + np.flatnonzero(np.diff(here, prepend=-1))
        return Chunk(
            part,
            _to_device(self._codes[starts, :-1], self._device),
            _to_device(here, self._device),
            _to_device(self._codes[part, -1], self._device),
        )


def _run_starts(parents: Codes) -> npt.NDArray[np.bool_]:
    """Where (M,) a row of parents (M, b-1, 4) differs from the row before it."""
    flat = parents.reshape(len(parents), parents.shape[1] * 4)
    starts = np.zeros(len(flat), dtype=np.bool_)
    starts[:1] = True
    starts[1:] = (flat[1:] != flat[:-1]).any(axis=1)
    return starts


def _to_device(values: npt.NDArray[np.integer], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)


@dataclass(frozen=True, slots=True)
class Branches:
    """The distinct nodes at one depth of the tree: the node above (n,) and the token (n,) of each."""

    above: Tensor
    token: Tensor


def last_block_tree(chunk: Chunk) -> tuple[list[Branches], Tensor]:
    """The distinct (in1), (in1, op1) and (in1, op1, in2) under a chunk's parents, in this order.

    Also the node (m,) of the last depth that each candidate hangs from.
    """
    in1, op1, in2, _ = chunk.block.unbind(1)
    keys = ((chunk.parent * INPUTS + in1) * len(OPERATIONS) + op1) * INPUTS + in2
    nodes, candidate = torch.unique(keys, return_inverse=True)
    depths = []
    for tokens in (INPUTS, len(OPERATIONS), INPUTS):
        nodes_above, above = torch.unique(nodes // tokens, return_inverse=True)
        depths.append(Branches(above, nodes % tokens))
        nodes = nodes_above
    return depths[::-1], candidate
