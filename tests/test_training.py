"""Training one child: it learns, it is reproducible, and what goes wrong becomes a reason."""

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import load
from pnas_fast.engine import Stepper, TrainingSettings
from pnas_fast.evaluation import train_child
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell
from pnas_fast.threads import torch_threads

CELL = Cell.parse("0:sep3x3+1:max_pool3x3")
TINY = TrainingSettings(filters=4, epochs=2, batch=32, device="cpu")
DATA = load("digits").subset(256)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def test_a_child_learns_digits() -> None:
    result, network = train_child(
        CELL, replace(TINY, filters=8, epochs=6), load("digits").subset(768), seed=1
    )
    assert result.status == "done"
    assert result.accuracy is not None
    assert result.accuracy > 0.6
    assert result.epoch_losses[-1] < 0.6 * result.epoch_losses[0]
    assert result.images_seen == 6 * 768
    assert network is not None
    assert result.parameters == network.parameters_count
    assert result.multiply_adds == network.multiply_adds
    assert result.images_per_second > 0
    assert result.seconds > 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    torch.manual_seed(123)
    first, network = train_child(CELL, replace(TINY, drop_path=0.3, label_smoothing=0.1), DATA, seed=5)
    torch.manual_seed(456)
    again, same = train_child(CELL, replace(TINY, drop_path=0.3, label_smoothing=0.1), DATA, seed=5)
    other, _ = train_child(CELL, replace(TINY, drop_path=0.3, label_smoothing=0.1), DATA, seed=6)
    assert first.epoch_losses == again.epoch_losses
    assert first.accuracy == again.accuracy
    assert network is not None
    assert same is not None
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), same.state_dict().values(), strict=True)
    )
    assert first.epoch_losses != other.epoch_losses


def test_the_fastest_kernels_are_the_default() -> None:
    best, _ = train_child(CELL, TINY, DATA, seed=5)
    named, _ = train_child(CELL, replace(TINY, backend="cpu"), DATA, seed=5)
    assert TINY.backend == "auto"
    assert best.status == named.status == "done"
    assert best.epoch_losses == named.epoch_losses


def test_a_stepper_takes_no_other_networks_memory() -> None:
    stepper = Stepper(nn.Linear(6, 4), TINY)
    state = stepper.state()
    for name in state:
        with pytest.raises(ValueError, match="expected"):
            stepper.restore({key: value for key, value in state.items() if key != name})
        with pytest.raises(ValueError, match=rf"{name} is \(2,\), expected"):
            stepper.restore(state | {name: torch.zeros(2)})
    with pytest.raises(ValueError, match="state of 3 tensors, expected"):
        stepper.restore(state | {"2.momentum_buffer": torch.zeros(2)})
    stepper.restore(state)


def test_a_diverging_child_fails_with_the_reason() -> None:
    result, network = train_child(CELL, replace(TINY, learning_rate=1e3, clip=0.0, epochs=8), DATA, seed=1)
    assert result.status == "failed"
    assert result.accuracy is None
    assert result.loss is None
    assert result.error is not None
    assert result.error.startswith("diverged: ")
    assert network is None


def test_a_child_past_its_time_limit_fails_with_the_reason() -> None:
    result, _ = train_child(CELL, replace(TINY, time_limit=0.001), DATA, seed=1)
    assert result.error == "exceeded the time limit of 0.001 s in epoch 1"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
            "out of memory: CUDA out of memory. Tried",
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), "out of memory: "),
        (MemoryError(), "out of memory"),
        (KeyError("surprise"), "KeyError: 'surprise'"),
    ],
)
def test_whatever_a_child_raises_becomes_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def explode(self: ChildNetwork, images: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(ChildNetwork, "forward", explode)
    result, _ = train_child(CELL, TINY, DATA, seed=1)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.startswith(reason)
    assert "\n" not in result.error


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_a_step_is_that_of_a_plain_loop(optimizer: str) -> None:
    """Learning rate, weight decay on weights alone, clipping and smoothing, against their definitions."""
    torch.manual_seed(0)
    settings = TrainingSettings(
        optimizer=optimizer, learning_rate=0.2, weight_decay=0.1, clip=0.5, label_smoothing=0.2
    )
    network = nn.Linear(6, 4).double()
    weight, bias = network.weight.detach().clone(), network.bias.detach().clone()
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    square = [torch.zeros_like(weight), torch.zeros_like(bias)]
    stepper = Stepper(network, settings)
    for step in range(4):
        x, y = torch.randn(8, 6, dtype=torch.float64), torch.randint(0, 4, (8,))
        target = torch.full((8, 4), 0.2 / 4, dtype=torch.float64)
        target[torch.arange(8), y] += 0.8
        error = ((x @ weight.T + bias).softmax(1) - target) / 8
        gradients = [error.T @ x, error.sum(0)]
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        gradients = [g * min(1.0, 0.5 / (norm + 1e-6)) for g in gradients]
        gradients[0] = gradients[0] + 0.1 * weight
        rate = 0.2 * (1 + math.cos(math.pi * step / 4)) / 2
        stepper.step(x, y, step / 4)
        for i, (value, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
            if optimizer == "sgd":
                velocity[i] = 0.9 * velocity[i] + gradient
                value -= rate * (gradient + 0.9 * velocity[i])
            else:
                square[i] = 0.9 * square[i] + 0.1 * gradient**2
                velocity[i] = 0.9 * velocity[i] + gradient / (square[i].sqrt() + 1.0)
                value -= rate * velocity[i]
    torch.testing.assert_close(network.weight.detach(), weight)
    torch.testing.assert_close(network.bias.detach(), bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0, allowed is 1 to 100000"),
        ({"epochs": 10**400}, r"epochs is 10+… \(401 characters\), allowed is 1 to 100000"),
        ({"epochs": 10**5000}, "epochs is a number of thousands of digits, allowed is 1 to 100000"),
        ({"learning_rate": 10**400}, r"learning_rate is 10+…"),
        ({"batch": 2**63}, "batch is 9223372036854775808, allowed is 2 to 1048576"),
        ({"clip": math.inf}, "clip is inf, allowed is 0 to 1000000000.0"),
        ({"time_limit": math.nan}, "time_limit is nan, allowed is 0.001 to"),
        ({"optimizer": "x" * 1000}, r"optimizer is 'x{59}… \(1002 characters\), allowed are sgd rmsprop"),
        ({"epochs": 2.5}, "epochs is 2.5, allowed is a value of type int"),
        ({"epochs": True}, "epochs is True, allowed is a value of type int"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"drop_path": 1.0}, "drop_path is 1.0, allowed is 0 to 0.999"),
        ({"optimizer": "adam"}, "optimizer is 'adam', allowed are sgd rmsprop"),
    ],
)
def test_settings_outside_their_limits_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_nothing_that_trains_imports_pytorchs_compiler() -> None:
    """It takes longer than all else that a worker imports; PyTorch does it behind many an ordinary call."""
    program = """
import sys
import numpy as np
from pnas_fast.candidates import one_block_cells
from pnas_fast.data import load
from pnas_fast.space import OPERATIONS, Cell
from pnas_fast.surrogate import Surrogate
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import train_child

settings = TrainingSettings(data="digits", device="cpu", backend="cpu", precision="fp32", epochs=1, filters=4)
train_child(Cell.parse("0:sep3x3+1:identity"), settings, load("digits").subset(200), seed=0)
codes = one_block_cells(OPERATIONS)
Surrogate("lstm", seed=0).fit([codes], [np.linspace(0, 1, len(codes))])
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
