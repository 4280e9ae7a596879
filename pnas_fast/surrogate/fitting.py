"""Fitting all members of an ensemble at once, each to its own four fifths of the trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pnas_fast.space import MAX_BLOCKS, Codes
from pnas_fast.surrogate.adam import Adam
from pnas_fast.surrogate.checks import Floats
from pnas_fast.surrogate.members import MemberModule
from pnas_fast.surrogate.mlp import MLPEnsemble, token_shares
from pnas_fast.surrogate.mlp_gradients import MLPGradients


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to fit: Adam's learning rate falls from ``learning_rate`` to 0 on a cosine."""

    steps: int
    batch: int
    learning_rate: float

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True, slots=True)
class Trials:
    """Trials of mixed sizes: codes int64 (n, 5, 4) padded with 0, sizes (n,), accuracies (n,).

    ``weights`` float32 (E, n) is 1 where a member is fitted to a trial.
    """

    codes: Tensor
    sizes: Tensor
    accuracies: Tensor
    weights: Tensor

    @classmethod
    def gather(
        cls, codes: Sequence[Codes], accuracies: Sequence[Floats], members: int, seed: int, device: str
    ) -> Trials:
        """One padded batch of trials that are given in groups of cells of equal size."""
        padded = [np.pad(group, ((0, 0), (0, MAX_BLOCKS - group.shape[1]), (0, 0))) for group in codes]
        sizes = np.concatenate([np.full(len(group), group.shape[1]) for group in codes])
        weights = member_weights(len(sizes), members, seed)
        return cls(
            torch.from_numpy(np.concatenate(padded).astype(np.int64)).to(device),
            torch.from_numpy(sizes).to(device),
            torch.from_numpy(np.concatenate(accuracies).astype(np.float32)).to(device),
            torch.from_numpy(weights).to(device),
        )

    def pick(self, rows: Tensor) -> Trials:
        """The trials of those rows, larger cells first."""
        rows = rows[torch.argsort(self.sizes[rows], descending=True, stable=True)]
        codes = self.codes[rows]
        return Trials(codes, self.sizes[rows], self.accuracies[rows], self.weights[:, rows])


def folds(trials: int, members: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold (n,) of each trial.

    Every run of E trials is spread over the E folds by a random permutation, so folds are even and a
    trial keeps its fold when later ones are added.
    """
    runs = -(-trials // members)
    draws = np.random.default_rng([seed, 0]).random((runs, members))
    return draws.argsort(axis=1).reshape(-1)[:trials]


def member_weights(trials: int, members: int, seed: int) -> npt.NDArray[np.float32]:
    """1 where member m (row) is fitted to a trial (column): those outside fold m.

    With fewer trials than members every member is fitted to all: there are no five different fifths.
    """
    if trials < members:
        return np.ones((members, trials), dtype=np.float32)
    return np.not_equal(folds(trials, members, seed), np.arange(members)[:, None]).astype(np.float32)


def fit_members(model: MemberModule, trials: Trials, schedule: Schedule, rng: np.random.Generator) -> None:
    """Minimise each member's mean absolute error over its trials with Adam (docs/method.md, 2), all at once.

    Members share the order of batches, never a gradient: the loss is the sum of theirs.
    """
    optimiser = Adam(list(model.parameters()))
    gradients = _mlp_gradients(model, trials) if isinstance(model, MLPEnsemble) else _autograd(model, trials)
    batches = itertools.islice(_batches(len(trials.sizes), schedule.batch, rng), schedule.steps)
    for step, rows in enumerate(batches):
        optimiser.step(gradients(rows.to(trials.sizes.device)), schedule.rate(step))


Gradients = Callable[[Tensor], Sequence[Tensor]]
"""Gradients of the loss on the trials of some rows, for every parameter."""


def _mlp_gradients(model: MLPEnsemble, trials: Trials) -> Gradients:
    shares = token_shares(trials.codes, trials.sizes)
    gradients = MLPGradients(model)
    return lambda rows: gradients(shares[rows], trials.accuracies[rows], trials.weights[:, rows])


def _autograd(model: MemberModule, trials: Trials) -> Gradients:
    parameters = list(model.parameters())
    return lambda rows: torch.autograd.grad(member_losses(model, trials.pick(rows)).sum(), parameters)


def _batches(count: int, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Endless batches of row numbers: every trial once, in a new random order, before any comes again."""
    while True:
        yield from torch.split(torch.from_numpy(rng.permutation(count)), size)


def member_losses(model: MemberModule, batch: Trials) -> Tensor:
    """Each member's mean absolute error (E,) over its trials of a batch, larger cells first."""
    predicted: Tensor = model(batch.codes, batch.sizes)
    errors = (predicted - batch.accuracies).abs() * batch.weights
    # A batch may hold no trial of some member.
    return errors.sum(1) / batch.weights.sum(1).clamp(min=1)
