"""Steps that are recorded and replayed on the CPU."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pnas_fast import _cpu_kernels as compiled
from pnas_fast.data import TrainingBatches, load
from pnas_fast.engine import Stepper, TrainingLoop, TrainingSettings
from pnas_fast.engine.graph import RecordedStep
from pnas_fast.kernels.recording import Recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell
from pnas_fast.threads import torch_threads

ALL_OPERATIONS = (
    "0:sep3x3+1:sep5x5,1:sep7x7+2:conv1x7_7x1,0:identity+3:avg_pool3x3,1:max_pool3x3+2:dil_conv3x3"
)
DIGITS = load("digits").subset(200)
SETTINGS = TrainingSettings(filters=4, epochs=2, batch=20, device="cpu", backend="cpu", precision="fp32")


def new_loop(
    cell: str = ALL_OPERATIONS, optimizer: str = "sgd", weighted: bool = False
) -> tuple[ChildNetwork, TrainingLoop]:
    settings = replace(SETTINGS, clip=1.0, label_smoothing=0.1, optimizer=optimizer)
    torch.manual_seed(0)
    network = ChildNetwork(Cell.parse(cell), 1, 4, 10, (1, 8, 8), "cpu", 0.3)
    batches = TrainingBatches(DIGITS, settings.batch, 3, cutout=2)
    stepper = Stepper(network, settings, weights=torch.linspace(0.5, 1.5, 10) if weighted else None)
    loop = TrainingLoop(network, stepper, batches, settings.epochs)
    loop.begin(0)
    return network, loop


def poison(recording: Recording) -> None:
    """Bytes that are NaN, or far out of any range, in all memory that the recorded step had made."""
    for storage in recording.memory:
        torch.empty(0, dtype=torch.uint8).set_(storage).fill_(255)


def state(network: ChildNetwork, loop: TrainingLoop) -> dict[str, Tensor]:
    return network.state_dict() | {"losses": loop.losses}


@pytest.mark.parametrize(
    ("threads", "optimizer", "weighted"),
    [(1, "sgd", False), (2, "sgd", False), (1, "rmsprop", False), (1, "sgd", True)],
)
def test_every_replay_is_the_step_that_would_have_come(threads: int, optimizer: str, weighted: bool) -> None:
    """Poisoned before each, what the recorded step had made is written anew before it is read."""
    with torch_threads(threads):
        (network, loop), (other, replayed) = (
            new_loop(optimizer=optimizer, weighted=weighted) for _ in range(2)
        )
        for step in (loop.step, loop.step, loop.step, loop.step):
            torch.manual_seed(1)
            step()
        recording = Recording()
        for step in (replayed.step, lambda: recording.record(replayed.step)):
            torch.manual_seed(1)
            step()
        for _ in range(2):
            poison(recording)
            torch.manual_seed(1)
            recording.replay()
    expected, got = state(network, loop), state(other, replayed)
    assert recording.refusal is None
    assert all(torch.equal(got[name], value) for name, value in expected.items())


def test_the_order_of_operators_and_compiled_calls_is_kept() -> None:
    source, first, second = (
        torch.rand(1, 8, 2, 1).contiguous(memory_format=torch.channels_last) for _ in range(3)
    )

    def step() -> None:
        source.mul_(2.0)
        for out in (first, second):
            side = compiled.Side(source.data_ptr(), 8, 0, 8, 2, 1, 0, 1, 0)
            compiled.add_forward((1, 8, 2, 1), side, None, out.data_ptr(), 8, 1)
            source.add_(1.0)

    recording = Recording()
    recording.record(step)
    start = source.clone()
    recording.replay()
    assert torch.equal(first, start * 2)
    assert torch.equal(second, start * 2 + 1)
    assert torch.equal(source, start * 2 + 2)


def test_nothing_is_recorded_after_the_end_of_a_step_or_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    out = torch.zeros(1, 8, 1, 1)

    def call() -> None:
        side = compiled.Side(out.data_ptr(), 8, 0, 8, 1, 1, 0, 1, 0)
        compiled.add_forward((1, 8, 1, 1), side, None, out.data_ptr(), 8, 1)

    def fail() -> None:
        call()
        raise ValueError("in a step")

    tapes: list[compiled.Tape] = []

    def new_tape() -> compiled.Tape:
        tapes.append(real())
        return tapes[-1]

    real = compiled.Tape
    monkeypatch.setattr(compiled, "Tape", new_tape)
    with pytest.raises(ValueError, match="in a step"):
        Recording().record(fail)
    Recording().record(call)
    call()
    assert [len(tape) for tape in tapes] == [1, 0, 1, 0]
    assert not any(tape.records for tape in tapes)


X = torch.rand(4)


@torch.library.custom_op("pnas_fast_tests::double", mutates_args=("x",))
def double(x: Tensor) -> None:
    """An operator that nobody knows what it does besides."""
    x.mul_(2.0)


@pytest.mark.parametrize(
    "step",
    [
        lambda: X.add_(float(X[0])),
        lambda: X.mul_(2.0 if bool((X > 0).all()) else 1.0),
        lambda: X[: len(X.nonzero())].add_(1.0),
        lambda: double(X),
    ],
    ids=["a number", "a truth", "a size", "a foreign operator"],
)
def test_a_step_that_cannot_be_recorded_is_done_as_it_is(step: Callable[[], None]) -> None:
    recording = Recording()
    recording.record(step)
    assert recording.refusal is not None
    done = RecordedStep(step)
    for _ in range(4):
        before = X.clone()
        step()
        expected = X.clone()
        X.copy_(before)
        done()
        assert torch.equal(X, expected)
    assert not done.recorded


def test_memory_goes_with_the_recording() -> None:
    _, loop = new_loop()
    step = RecordedStep(loop.step)
    for _ in range(3):
        step()
    assert step.recorded
    gone = weakref.ref(loop)
    del loop, step
    gc.collect()
    assert gone() is None
