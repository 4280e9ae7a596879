"""The surrogate: an ensemble of five that predicts accuracies from codes (docs/method.md, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from pnas_fast.space import Codes
from pnas_fast.surrogate.checks import Floats, SurrogateError, check_codes, check_trials
from pnas_fast.surrogate.fitting import Schedule, Trials, fit_members, member_weights
from pnas_fast.surrogate.lstm import LSTMEnsemble
from pnas_fast.surrogate.lstm_scoring import score_lstm
from pnas_fast.surrogate.mlp import MLPEnsemble
from pnas_fast.surrogate.mlp_scoring import score_mlp
from pnas_fast.surrogate.path_ridge import PathEnsemble
from pnas_fast.threads import torch_threads

PREDICTORS = ("mlp", "lstm", "paths")
REFITS = ("finetune", "scratch")

# Chosen on synthetic searches: more steps fit the trials closer but rank the next level no better.
# New weights get the paper's first rate (docs/method.md, 2) at any level: its later, lower one ranked clearly
# worse from scratch in as many steps, most of all with the LSTM, and is kept for fine-tuning.
FRESH = Schedule(steps=500, batch=64, learning_rate=0.01)
FINETUNE = Schedule(steps=400, batch=64, learning_rate=0.002)

_PLAIN_ROWS = 4096


class HasCodes(Protocol):
    """Candidates: anything with their int8 codes (M, b, 4), best ordered by parent."""

    @property
    def codes(self) -> Codes:
        """The codes."""


class Surrogate:
    """An ensemble of predictors held and fitted as one batched model.

    Member m is fitted without fold m of the trials; the ensemble predicts the members' mean. The result
    depends on seed and trials only: neither torch's global generator nor Python's hash seed has a say.

    Args:
        predictor: ``mlp``, ``lstm``, or ``paths``: ridge regressions on paths and sides of cells, in closed
            form and float64. Their predictions may lie outside [0, 1].
        seed: of initial weights, folds and the order of batches; not negative.
        members: E, at least 2.
        device: where weights live and scoring runs; ``paths`` stays on the CPU.
        refit: what `fit` does after the first time: ``finetune`` goes on from the present weights,
            ``scratch`` starts from new ones (docs/method.md, 2). ``paths`` has none to go on from.

    Raises:
        SurrogateError: an argument outside its limits.
    """

    def __init__(
        self, predictor: str, *, seed: int, members: int = 5, device: str = "cpu", refit: str = "finetune"
    ) -> None:
        for name, value, allowed in (("predictor", predictor, PREDICTORS), ("refit", refit, REFITS)):
            if value not in allowed:
                raise SurrogateError(f"{name} is {value!r}, allowed are {' '.join(allowed)}")
        for name, number, least in (("seed", seed, 0), ("members", members, 2)):
            if number < least:
                raise SurrogateError(f"{name} is {number}, allowed are {least} and more")
        self.predictor = predictor
        self.seed = seed
        self.members = members
        self.device = device
        self.refit = refit
        self._fits = 0
        self._model: MLPEnsemble | LSTMEnsemble | PathEnsemble | None = None

    def fit(self, codes: Sequence[Codes], accuracies: Sequence[Floats]) -> None:
        """Fit the members to all trials so far.

        Args:
            codes: groups of trials, int8 (n, b, 4), where b may differ between groups.
            accuracies: (n,) in [0, 1] for each group. Append new trials at the end: a trial's fold
                depends on its position.

        Raises:
            SurrogateError: no trials, a wrong type or shape, a code out of range, or an accuracy
                that is not a number in [0, 1].
        """
        check_trials(codes, accuracies)
        if self.predictor == "paths":
            uses = member_weights(sum(map(len, codes)), self.members, self.seed)
            with torch_threads(1):  # so that their number changes no bit
                self._model = PathEnsemble.fit(codes, accuracies, uses)
        else:
            self._fit_networks(codes, accuracies)

    def _fit_networks(self, codes: Sequence[Codes], accuracies: Sequence[Floats]) -> None:
        trials = Trials.gather(codes, accuracies, self.members, self.seed, self.device)
        rng = np.random.default_rng([self.seed, 1 + self._fits])  # 0 draws the folds
        model, schedule = self._model, FINETUNE
        if model is None or isinstance(model, PathEnsemble) or self.refit == "scratch":
            schedule = FRESH
            kind = MLPEnsemble if self.predictor == "mlp" else LSTMEnsemble
            self._model = model = kind(self.members, rng).to(self.device)
        # One thread: batches are small, and threads that wait for each other after every operation
        # take minutes where other processes use the cores.
        with torch_threads(1), torch.enable_grad():
            fit_members(model, trials, schedule, rng)
        self._fits += 1

    def predict(self, codes: Codes) -> Floats:
        """The predicted accuracy float64 (M,) of cells int8 (M, b, 4): the mean of the members."""
        mean: Floats = self.predict_members(codes).mean(axis=0)
        return mean

    def predict_members(self, codes: Codes) -> Floats:
        """Each member's prediction float64 (E, M) by the plain batched forward, the oracle of `score`.

        Raises:
            SurrogateError: a wrong type or shape, a code out of range, or a surrogate never fitted.
        """
        model = self._ready(codes)
        if isinstance(model, PathEnsemble):
            return model.predict(codes)
        tokens = torch.from_numpy(codes.astype(np.int64)).to(self.device)
        parts = []
        with torch.no_grad():
            for part in torch.split(tokens, _PLAIN_ROWS):
                sizes = torch.full((len(part),), codes.shape[1], device=self.device)
                parts.append(model(part, sizes))
        return torch.cat(parts, dim=1).double().cpu().numpy()

    def score(self, candidates: HasCodes) -> Floats:
        """Each member's prediction float64 (E, M) for candidates of one size, sharing common prefixes.

        Equals `predict_members` to 1e-5, with ``paths`` to the bit, and is many times faster when candidates
        come by parent.

        Raises:
            SurrogateError: a wrong type or shape, a code out of range, or a surrogate never fitted.
        """
        codes = candidates.codes
        model = self._ready(codes)
        if isinstance(model, PathEnsemble):
            return model.score(codes)
        with torch.no_grad():
            scores = score_mlp(model, codes) if isinstance(model, MLPEnsemble) else score_lstm(model, codes)
        return scores.double().cpu().numpy()

    def _ready(self, codes: Codes) -> MLPEnsemble | LSTMEnsemble | PathEnsemble:
        check_codes(codes)
        if self._model is None:
            raise SurrogateError("the surrogate has no trials yet, fit it first")
        return self._model
