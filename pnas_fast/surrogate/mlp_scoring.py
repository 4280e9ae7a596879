"""Scoring candidates with the MLP ensemble: its first layer as sums of table look-ups.

The first layer is linear in the mean of embeddings, so it is ``(Σ blocks' contributions) / b + bias``,
and a block's contribution is a sum over its four tokens of rows of ``embedding · layer``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pnas_fast.space import OPERATIONS, Codes
from pnas_fast.surrogate.chunked import score_chunks
from pnas_fast.surrogate.members import INPUTS
from pnas_fast.surrogate.mlp import MLPEnsemble
from pnas_fast.surrogate.prefix_tree import Chunk

# Candidates worked on at once: on a CPU few enough for the cache, on a GPU enough to fill it.
ROWS = {"cpu": 1024, "cuda": 131072}


def score_mlp(model: MLPEnsemble, codes: Codes) -> Tensor:
    """Predicted accuracies float32 (E, M) of candidates in int8 codes (M, b, 4), as `model` gives them."""
    blocks = _block_table(model) / codes.shape[1]
    rows = ROWS[model.first.device.type]
    return score_chunks(model, codes, rows, lambda chunk: _score_chunk(model, blocks, chunk))


def _score_chunk(model: MLPEnsemble, blocks: Tensor, chunk: Chunk) -> Tensor:
    parents = model.first_bias.expand(-1, len(chunk.parents), -1).clone()
    for block in chunk.parents.unbind(1):
        parents += blocks.index_select(1, _block_number(block))
    hidden = parents.index_select(1, chunk.parent)
    hidden += blocks.index_select(1, _block_number(chunk.block))
    hidden = torch.baddbmm(model.second_bias, hidden.relu_(), model.second).relu_()
    return model.accuracy(hidden)


def _block_number(block: Tensor) -> Tensor:
    """The row of the block table for blocks (n, 4)."""
    in1, op1, in2, op2 = block.unbind(1)
    return ((in1 * len(OPERATIONS) + op1) * INPUTS + in2) * len(OPERATIONS) + op2


def _block_table(model: MLPEnsemble) -> Tensor:
    """What each possible block adds to the first layer: (E, (6·8)², H)."""
    in1, op1, in2, op2 = model.token_units()
    left, right = (
        (source[:, :, None] + operation[:, None]).flatten(1, 2)
        for source, operation in ((in1, op1), (in2, op2))
    )
    return (left[:, :, None] + right[:, None]).flatten(1, 2)
