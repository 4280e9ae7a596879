"""Gradients of the MLP ensemble's loss written out: autograd takes most of the time of layers this small."""

from __future__ import annotations

import torch
from torch import Tensor

from pnas_fast.surrogate.members import EMBEDDING
from pnas_fast.surrogate.mlp import COLUMNS, MLPEnsemble

_relu_backward = torch.ops.aten.threshold_backward


class MLPGradients:
    """Gradients of the ensemble's loss on a batch, for every parameter.

    A member's loss is Σ weight |p − accuracy| / max(Σ weight, 1), and its accuracies are, with U what
    `MLPEnsemble.token_units` gives::

        A₁ = shares U + b₁      A₂ = relu(A₁) W₂ + b₂      p = sigmoid(relu(A₂) w + b)

    So backwards, with dA where A is above 0 and 0 elsewhere::

        dz = sign(p − accuracy) weight p (1 − p) / max(Σ weight, 1)
        dA₂ = dz wᵀ             dA₁ = dA₂ W₂ᵀ              dU = sharesᵀ dA₁

    and of a column's table T and its rows L of the first layer, dT = dU Lᵀ and dL = Tᵀ dU.

    Args:
        model: E members, whose parameters may change between calls.
    """

    def __init__(self, model: MLPEnsemble) -> None:
        self._model = model
        # Most of all gradients, and a page of fresh memory costs as much as what is computed into it.
        self._first = torch.empty_like(model.first)

    @torch.no_grad()
    def __call__(self, shares: Tensor, accuracies: Tensor, weights: Tensor) -> list[Tensor]:
        """Gradients in the order of the model's parameters, good until the next call.

        Args:
            shares: (n, 28) of `token_shares`.
            accuracies: (n,).
            weights: (E, n), 1 where a member is fitted to a trial.
        """
        model = self._model
        shares = shares.expand(model.members, -1, -1)
        first = torch.baddbmm(model.first_bias, shares, torch.cat(model.token_units(), dim=1)).relu_()
        second = torch.baddbmm(model.second_bias, first, model.second).relu_()
        predicted = model.accuracy(second)

        counts = weights.sum(1, keepdim=True).clamp_(min=1)
        errors = (predicted - accuracies).sign_().mul_(weights).div_(counts)
        logits = errors.mul_(predicted).mul_(1 - predicted)[:, :, None]
        second_sums = _relu_backward(logits * model.output.mT, second, 0)
        first_sums = _relu_backward(torch.bmm(second_sums, model.second.mT), first, 0)
        gradients = {
            "output": torch.bmm(second.mT, logits),
            "output_bias": logits.sum(1, keepdim=True),
            "second": torch.bmm(first.mT, second_sums),
            "second_bias": second_sums.sum(1, keepdim=True),
            "first_bias": first_sums.sum(1, keepdim=True),
        }
        gradients |= self._of_tables(torch.bmm(shares.mT, first_sums))
        return [gradients[name] for name, _ in model.named_parameters()]

    def _of_tables(self, units: Tensor) -> dict[str, Tensor]:
        """Gradients of embeddings and first layer, from that (E, 28, H) of `MLPEnsemble.token_units`."""
        model = self._model
        in1, op1, in2, op2 = torch.split(units, list(COLUMNS), 1)
        layers = [layer.mT for layer in torch.split(model.first, EMBEDDING, 1)]
        tables = (model.inputs, model.operations, model.inputs, model.operations)
        places = torch.split(self._first, EMBEDDING, 1)
        for table, part, place in zip(tables, (in1, op1, in2, op2), places, strict=True):
            torch.bmm(table.mT, part, out=place)
        return {
            "inputs": torch.baddbmm(torch.bmm(in1, layers[0]), in2, layers[2]),
            "operations": torch.baddbmm(torch.bmm(op1, layers[1]), op2, layers[3]),
            "first": self._first,
        }
