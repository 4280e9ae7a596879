"""The batched predictors against one network per member, built from torch's own layers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pnas_fast.surrogate.lstm import LSTMEnsemble
from pnas_fast.surrogate.members import MemberModule
from pnas_fast.surrogate.mlp import MLPEnsemble
from surrogate_data import random_cells


def tokens(model: MemberModule, member: int, cell: Tensor) -> Tensor:
    """A cell's embedded blocks (b, 4, D)."""
    inputs, operations = model.inputs[member], model.operations[member]
    in1, op1, in2, op2 = cell.unbind(1)
    return torch.stack([inputs[in1], operations[op1], inputs[in2], operations[op2]], dim=1)


def read_out(model: MemberModule, member: int, hidden: Tensor) -> Tensor:
    return torch.sigmoid(hidden @ model.output[member, :, 0] + model.output_bias[member, 0, 0])


def one_mlp(model: MLPEnsemble, member: int, cell: Tensor) -> Tensor:
    pooled = tokens(model, member, cell).flatten(1).mean(0)
    hidden = torch.relu(pooled @ model.first[member] + model.first_bias[member, 0])
    hidden = torch.relu(hidden @ model.second[member] + model.second_bias[member, 0])
    return read_out(model, member, hidden)


def one_lstm(model: LSTMEnsemble, member: int, cell: Tensor) -> Tensor:
    lstm = nn.LSTM(100, 100)
    lstm.load_state_dict(
        {
            "weight_ih_l0": model.projection[member].T,
            "weight_hh_l0": model.recurrence[member].T,
            "bias_ih_l0": model.bias[member, 0],
            "bias_hh_l0": torch.zeros(400),
        }
    )
    _, (hidden, _) = lstm(tokens(model, member, cell).flatten(0, 1))
    return read_out(model, member, hidden[0])


@pytest.mark.parametrize(("kind", "single"), [(MLPEnsemble, one_mlp), (LSTMEnsemble, one_lstm)])
def test_one_forward_serves_all_members_and_sizes(kind, single) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(11)
    model = kind(5, rng)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1 if name == "output_bias" else 3)  # so that a swapped gate or column shows
        sizes = torch.tensor([5, 5, 4, 3, 3, 1])
        codes = torch.from_numpy(random_cells(rng, len(sizes), 5).astype(np.int64))
        together = model(codes, sizes)
        alone = torch.stack(
            [
                torch.stack([single(model, m, cell[:size]) for cell, size in zip(codes, sizes, strict=True)])
                for m in range(5)
            ]
        )
    assert together.std() > 0.01
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [MLPEnsemble, LSTMEnsemble])
def test_padding_does_not_count(kind: type[MemberModule]) -> None:
    rng = np.random.default_rng(1)
    model = kind(5, rng)
    codes = torch.from_numpy(random_cells(rng, 6, 2).astype(np.int64))
    sizes = torch.tensor([2, 2, 2, 1, 1, 1])
    padded = torch.nn.functional.pad(codes, (0, 0, 0, 3))
    assert torch.equal(model(padded, sizes), model(codes, sizes))


@pytest.mark.parametrize("kind", [MLPEnsemble, LSTMEnsemble])
def test_initial_weights_are_the_papers(kind: type[MemberModule]) -> None:
    model = kind(5, np.random.default_rng(0))
    for table in (model.inputs.detach(), model.operations.detach()):
        assert 0.095 < table.abs().max() <= 0.1
        assert abs(table.mean()) < 0.01
    assert model.inputs.shape == (5, 6, 100)
    assert model.operations.shape == (5, 8, 100)
    assert (model.output_bias == 1.8).all()
    assert torch.sigmoid(model.output_bias.detach()).mean().item() == pytest.approx(0.858, abs=1e-3)
