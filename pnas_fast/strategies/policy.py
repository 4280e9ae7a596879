"""What a controller draws cells from: for each choice of a cell, a distribution that those before decide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pnas_fast.space import CELL_INPUTS, MAX_BLOCKS, Block, Cell, CellError, check_operations

HIDDEN = 100
"""Units of the LSTM and width of its embeddings (Zoph et al., CVPR 2018)."""

REACH = 0.1
"""The LSTM's parameters begin as draws from U(±0.1), which makes all choices almost equally likely."""

State = tuple[Tensor, Tensor]
"""The LSTM's hidden state and memory, each (n, `HIDDEN`)."""


class Choices:
    """The 4 B choices that make a cell of B blocks: in1, in2, op1, op2 of each block in turn.

    Attributes:
        limits: how many values each choice has. An input of block i is below 2 + i, so it never reads itself
            or a later block; an operation is its place among those the cell may have.

    Raises:
        CellError: blocks or operations outside the search space.
    """

    def __init__(self, blocks: int, operations: Sequence[str]) -> None:
        self._names = check_operations(operations)
        if not 1 <= blocks <= MAX_BLOCKS:
            raise CellError(f"cell of {blocks} blocks, allowed are 1 to {MAX_BLOCKS}")
        of_block = [[CELL_INPUTS + index] * 2 + [len(self._names)] * 2 for index in range(blocks)]
        self.limits = tuple(limit for limits in of_block for limit in limits)

    def of(self, cells: Iterable[Cell]) -> Tensor:
        """The choices of n cells as they are written, int64 (n, 4 B).

        Raises:
            CellError: a cell has an operation that is not among the choices.
        """
        return torch.tensor([self._of(cell) for cell in cells], dtype=torch.int64).view(-1, len(self.limits))

    def _of(self, cell: Cell) -> list[int]:
        cell.check_operations(self._names)
        code = self._names.index
        return [v for b in cell.blocks for v in (b.in1, b.in2, code(b.op1), code(b.op2))]

    def cell(self, values: Sequence[int]) -> Cell:
        """The cell of 4 B choices, as they write it: not canonical."""
        rows = np.reshape(values, (-1, 4)).tolist()
        return Cell(tuple(Block(in1, self._names[op1], in2, self._names[op2]) for in1, in2, op1, op2 in rows))


class Policy(ABC):
    """A distribution over cells: a softmax for each choice over just the values that it may have.

    Attributes:
        choices: what it decides.
        parameters: what is learned, float64, changed in place.
    """

    choices: Choices
    parameters: list[Tensor]

    @abstractmethod
    def step(self, values: Tensor, index: int, state: State | None) -> tuple[Tensor, State | None]:
        """Logits (n, limit) of choice ``index``, and the state for the next one.

        Args:
            values: the choices of n cells, int64 (n, 4 B); only those before ``index`` are looked at.
            state: what the step before returned; None for the first.
        """

    def evaluate(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (n,) of cells as written, and entropies (n,) along them, in nats.

        A log-probability is the sum over the 4 B choices. So is an entropy, of the distributions that the
        cell's own choices lead to: its mean over cells drawn from the policy is the policy's entropy.
        """
        log_probability = entropy = torch.zeros(len(values), dtype=torch.float64)
        state = None
        for index in range(len(self.choices.limits)):
            logits, state = self.step(values, index, state)
            logs = logits.log_softmax(1)
            log_probability = log_probability + logs.gather(1, values[:, index : index + 1]).squeeze(1)
            entropy = entropy - (logs.exp() * logs).sum(1)
        return log_probability, entropy

    @torch.no_grad()
    def sample(self, draws: npt.NDArray[np.float64]) -> tuple[Cell, float]:
        """A cell and its log-probability, from 4 B numbers in [0, 1) by the inverse of each distribution."""
        values = torch.zeros((1, len(draws)), dtype=torch.int64)
        log_probability, state = 0.0, None
        for index, draw in enumerate(draws):
            logits, state = self.step(values, index, state)
            logs = logits.log_softmax(1)[0].numpy()
            cumulative = np.exp(logs).cumsum()
            # Rounding may lift a draw close to 1 onto the total.
            value = min(int(cumulative.searchsorted(draw * cumulative[-1], "right")), len(logs) - 1)
            values[0, index] = value
            log_probability += float(logs[value])
        return self.choices.cell(values[0].tolist()), log_probability


class TablePolicy(Policy):
    """A free logit for each value of each choice, whatever was chosen before; all begin as 0."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.parameters = [
            torch.zeros(limit, dtype=torch.float64, requires_grad=True) for limit in choices.limits
        ]

    def step(self, values: Tensor, index: int, state: State | None) -> tuple[Tensor, State | None]:
        """See `Policy`."""
        return self.parameters[index].expand(len(values), -1), None


class LstmPolicy(Policy):
    """One LSTM layer that reads each choice before it makes the next, beginning with a vector of its own.

    Inputs share one embedding and one output layer, operations another. Gates are held in the order input,
    forget, candidate, output: ``c' = σ(f)·c + σ(i)·tanh(g)``, ``h' = σ(o)·tanh(c')``.

    Args:
        rng: draws the parameters, from U(±`REACH`).
    """

    def __init__(self, choices: Choices, rng: np.random.Generator) -> None:
        self.choices = choices
        most = choices.limits[-4], choices.limits[-1]  # inputs, operations
        shapes = [(1, HIDDEN), (2 * HIDDEN, 4 * HIDDEN), (4 * HIDDEN,)]
        for count in most:
            shapes += [(count, HIDDEN), (HIDDEN, count), (count,)]
        self.parameters = [
            torch.tensor(rng.uniform(-REACH, REACH, shape), requires_grad=True) for shape in shapes
        ]

    def step(self, values: Tensor, index: int, state: State | None) -> tuple[Tensor, State | None]:
        """See `Policy`."""
        start, weight, bias = self.parameters[:3]
        if state is None:
            hidden = memory = start.new_zeros((len(values), HIDDEN))
            read = start.expand(len(values), -1)
        else:
            hidden, memory = state
            read = self._kind(index - 1)[0].index_select(0, values[:, index - 1])
        gates = torch.addmm(bias, torch.cat([read, hidden], 1), weight)
        admit, keep, candidate, show = gates.chunk(4, 1)
        memory = keep.sigmoid() * memory + admit.sigmoid() * candidate.tanh()
        hidden = show.sigmoid() * memory.tanh()
        _, layer, offset = self._kind(index)
        limit = self.choices.limits[index]
        return torch.addmm(offset[:limit], hidden, layer[:, :limit]), (hidden, memory)

    def _kind(self, index: int) -> list[Tensor]:
        """Embedding, weights and bias of inputs or of operations, whichever choice ``index`` is about."""
        return self.parameters[3:6] if index % 4 < 2 else self.parameters[6:9]
