"""Steps of a training: those of a plain loop; the same from a graph; in half precision."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain_child import CELL, PlainChild, copy_weights
from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataSet, TrainingBatches, load
from pnas_fast.engine import (
    DTYPES,
    Stepper,
    TrainingLoop,
    TrainingSettings,
    class_weights,
    evaluate,
    resolve_precision,
)
from pnas_fast.engine.graph import GraphedStep, RecordedStep, Step
from pnas_fast.engine.optimizer import build_optimizer
from pnas_fast.evaluation import train_child
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell
from pnas_fast.threads import torch_threads

DIGITS = load("digits").subset(200)
SETTINGS = TrainingSettings(filters=4, epochs=2, batch=40, device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def child(drop_path: float = 0.0, backend: str = "eager") -> ChildNetwork:
    torch.manual_seed(0)
    network = ChildNetwork(Cell.parse(CELL), 1, 4, 10, (1, 8, 8), backend, drop_path)
    return network.to(memory_format=torch.channels_last)


def largest_error(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach().double(), expected.detach().double()
    return float((got - expected).norm() / expected.norm())


def test_fifty_steps_are_those_of_a_plain_loop() -> None:
    settings = replace(SETTINGS, epochs=10, weight_decay=1e-3, label_smoothing=0.1, clip=1.0)
    batches = TrainingBatches(DIGITS, 40, seed=3, dtype=torch.float64)
    network, plain = child().double(), PlainChild(4, 10, 1).double()
    copy_weights(network, plain)
    decayed = [parameter for parameter in plain.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in plain.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 1e-3}, {"params": others}], lr=1.0, momentum=0.9, nesterov=True
    )
    loop = TrainingLoop(network, Stepper(network, settings), batches, epochs=10)
    clipped = 0
    for epoch in range(10):
        loop.begin(epoch)
        losses = []
        for index in range(5):
            images, labels = batches.batch(epoch, index)
            loss = F.cross_entropy(plain(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            clipped += int(nn.utils.clip_grad_norm_(plain.parameters(), 1.0) > 1.0)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * (5 * epoch + index) / 50))
            optimizer.step()
            losses.append(float(loss.detach()))
            loop.step()
        assert loop.loss() == pytest.approx(sum(losses) / 5, rel=1e-9)
    assert 0 < clipped < 50
    for got, expected in zip(network.parameters(), plain.parameters(), strict=True):
        assert largest_error(got, expected) < 1e-8
    statistics = zip(_statistics(network), _statistics(plain), strict=True)
    assert max(largest_error(got, expected) for got, expected in statistics) < 1e-8


def _statistics(network: nn.Module) -> list[Tensor]:
    return [
        value for name, value in network.state_dict().items() if "running" in name or "num_batches" in name
    ]


def same_tensors(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = zip(one.values(), other.values(), strict=True)
    return one.keys() == other.keys() and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("backend", "precision"), [("eager", "fp32"), ("eager", "bf16"), ("eager", "fp16"), ("cpu", "fp32")]
)
def test_a_whole_training_from_recordings_has_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, backend: str, precision: str
) -> None:
    """Whatever a step would work out in Python would be frozen, here as in a CUDA graph."""
    settings = replace(
        SETTINGS, drop_path=0.4, label_smoothing=0.1, clip=1.0, precision=precision, backend=backend
    )
    cell = Cell.parse("0:sep3x3+1:max_pool3x3,2:sep3x3+0:avg_pool3x3")
    monkeypatch.setattr("pnas_fast.engine.evaluation.EVALUATION_BATCH", 100)
    monkeypatch.setattr("pnas_fast.evaluation.child.replayed", lambda step, *_: step)
    result, network = train_child(cell, settings, DIGITS, seed=4)
    steps: list[RecordedStep] = []

    def recorded(step: Step, *_: Any, **__: Any) -> Step:
        steps.append(RecordedStep(step))
        return steps[-1]

    monkeypatch.setattr("pnas_fast.evaluation.child.replayed", recorded)
    monkeypatch.setattr("pnas_fast.engine.evaluation.graphed", recorded)
    again, from_recording = train_child(cell, settings, DIGITS, seed=4)
    assert again.error is result.error is None
    assert [step.recorded for step in steps] == [True, True]
    assert again.epoch_losses == result.epoch_losses
    assert again.accuracy == result.accuracy
    assert network is not None
    assert from_recording is not None
    assert same_tensors(network.state_dict(), from_recording.state_dict())


class Journal:
    """A graph that writes down what it is asked for."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def warm_up(self, step: Any) -> None:
        self.entries.append("warm up")
        step()

    def capture(self, step: Any) -> None:
        self.entries.append("capture")

    def replay(self) -> None:
        self.entries.append("replay")


def test_every_call_of_a_graphed_step_is_one_step() -> None:
    journal, done = Journal(), []
    step = GraphedStep(lambda: done.append(1), journal, warm_up=2)
    for _ in range(5):
        step()
    assert journal.entries == ["warm up", "warm up", "capture", "replay", "replay", "replay"]
    assert len(done) == 2


def test_weights_of_classes_multiply_the_losses_of_images() -> None:
    """The gradient is that of the mean over classes of their mean losses, where all images are one batch."""
    settings = replace(SETTINGS, label_smoothing=0.1, clip=0.0, class_weights="balanced")
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    data = replace(DIGITS, train_images=DIGITS.train_images[:8], train_labels=labels)
    weights = class_weights(settings, data)
    assert weights is not None
    torch.manual_seed(2)
    images, network = torch.randn(8, 6, dtype=torch.float64), nn.Linear(6, 10).double()
    plain = copy.deepcopy(network)
    loss = Stepper(network, settings, weights=weights).step(images, labels, 0.0)
    losses = F.cross_entropy(plain(images), labels, reduction="none", label_smoothing=0.1)
    expected = torch.stack([losses[labels == number].mean() for number in range(3)]).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6)
    for got, wanted in zip(network.parameters(), plain.parameters(), strict=True):
        assert largest_error(got.grad, wanted.grad) < 1e-6  # type: ignore[arg-type]


def test_balanced_weights_are_one_on_average_and_none_where_classes_are_equal() -> None:
    balanced = replace(SETTINGS, class_weights="balanced")
    labels = torch.tensor([0] * 6 + [3] * 2)
    data = replace(DIGITS, train_images=DIGITS.train_images[:8], train_labels=labels)
    weights = class_weights(balanced, data)
    assert weights is not None
    assert weights.tolist() == pytest.approx([8 / (2 * 6), 0, 0, 8 / (2 * 2), 0, 0, 0, 0, 0, 0])
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert class_weights(SETTINGS, data) is None
    assert class_weights(balanced, replace(data, train_labels=torch.tensor([0, 1] * 4))) is None


def test_children_train_with_weights_and_cutout_as_they_are_told() -> None:
    cell = Cell.parse("0:sep3x3+1:max_pool3x3")
    for change in ({"class_weights": "balanced"}, {"cutout": 3}):
        settings: TrainingSettings = replace(SETTINGS, **change)  # type: ignore[arg-type]
        found, again, plain = (train_child(cell, s, DIGITS, 4)[0] for s in (settings, settings, SETTINGS))
        assert found.error is None
        assert found.epoch_losses == again.epoch_losses != plain.epoch_losses


def test_progress_may_be_a_number_or_on_the_device() -> None:
    batches = TrainingBatches(DIGITS, 40, seed=3)
    networks = [child(drop_path=0.5), child(drop_path=0.5)]
    for network, progress in zip(networks, (0.4, torch.tensor(0.4, dtype=torch.float64)), strict=True):
        network.set_progress(progress)
        stepper = Stepper(network, SETTINGS)
        torch.manual_seed(1)
        for index in range(3):
            stepper.step(*batches.batch(0, index), progress)
    first, second = networks
    assert same_tensors(first.state_dict(), second.state_dict())


@pytest.mark.parametrize(("optimizer", "precision"), [("sgd", "fp32"), ("rmsprop", "fp32"), ("sgd", "fp16")])
def test_a_stepper_goes_on_from_its_state(optimizer: str, precision: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer, precision=precision)
    batches = TrainingBatches(DIGITS, 40, seed=3, dtype=DTYPES[precision])
    network = child()
    stepper = Stepper(network, settings)
    for index in range(2):
        stepper.step(*batches.batch(0, index), index / 5)
    other = copy.deepcopy(network)
    resumed = Stepper(other, settings)
    resumed.restore({name: value.clone() for name, value in stepper.state().items()})
    for index in range(2, 5):
        for one in (stepper, resumed):
            one.step(*batches.batch(0, index), index / 5)
    assert same_tensors(network.state_dict(), other.state_dict())
    assert same_tensors(stepper.state(), resumed.state())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_weights_and_statistics_in_full(precision: str) -> None:
    settings = replace(SETTINGS, precision=precision)
    network, exact = child(), child()
    batches = [TrainingBatches(DIGITS, 40, seed=3, dtype=DTYPES[name]) for name in (precision, "fp32")]
    gradients = []
    for trained, made in zip((network, exact), batches, strict=True):
        images, labels = made.batch(0, 0)
        # Scaled as the loss would be: the smallest gradients are none in fp16 otherwise.
        (F.cross_entropy(trained(images), labels) * 1024).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained.parameters()]))  # type: ignore[union-attr]
    assert 0 < largest_error(*gradients) < (0.15 if precision == "bf16" else 0.05)
    stepper = Stepper(network, settings)
    losses = [float(stepper.step(*batches[0].batch(0, index), 0.0)) for index in range(5)]
    kept = [*network.parameters(), *network.buffers(), *stepper.state().values()]
    assert {value.dtype for value in kept if value.is_floating_point()} <= {torch.float32, torch.float64}
    assert losses[-1] < losses[0]


def test_a_step_whose_scaled_gradients_overflow_changes_nothing_but_the_scale() -> None:
    settings = replace(SETTINGS, precision="fp16")
    network = child()
    stepper = Stepper(network, settings)
    state = stepper.state()
    stepper.restore(state | {"loss_scale.scale": torch.tensor(2.0**40)})
    before = [parameter.detach().clone() for parameter in network.parameters()]
    images, labels = TrainingBatches(DIGITS, 40, seed=3, dtype=torch.float16).batch(0, 0)
    stepper.step(images, labels, 0.0)
    after = stepper.state()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    memory = [value for name, value in after.items() if "momentum_buffer" in name]
    assert len(memory) == len(before)
    assert all(not value.any() for value in memory)
    assert float(after["loss_scale.scale"]) == 2.0**39
    stepper.restore(after | {"loss_scale.scale": torch.tensor(2.0**10)})
    stepper.step(images, labels, 0.0)
    assert not all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_scaling_the_loss_does_not_change_what_is_learned() -> None:
    """In fp32, where nothing is lost: powers of two come out again exactly, clipping sees true norms."""
    batches = TrainingBatches(DIGITS, 40, seed=3)
    networks = [child(), child()]
    for network, precision in zip(networks, ("fp32", "fp16"), strict=True):
        stepper = Stepper(network, replace(SETTINGS, clip=0.5, precision=precision))
        for index in range(4):
            stepper.step(*batches.batch(0, index), 0.0)
    first, second = networks
    assert same_tensors(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
@pytest.mark.parametrize("memory", ["smaller", "transposed", "of doubles", "missing"])
def test_what_is_remembered_is_laid_out_as_its_parameter(memory: str, optimizer: str) -> None:
    """Fused updates are given addresses alone, by a recorded step over and over."""
    rate, parameter = torch.zeros(()), nn.Parameter(torch.zeros(4, 6))
    parameter.grad = torch.zeros(4, 6)
    updates = build_optimizer([parameter], replace(SETTINGS, optimizer=optimizer), rate)
    updates.step()
    own = updates.state[parameter]
    other = {
        "smaller": torch.zeros(2),
        "transposed": torch.zeros(6, 4).T,
        "of doubles": torch.zeros(4, 6).double(),
    }
    del own["momentum_buffer"]
    if memory in other:
        own["momentum_buffer"] = other[memory]
    with pytest.raises(ValueError, match=r"optimiser: momentum_buffer is .*, allowed is"):
        updates.step()


def test_precisions_are_resolved_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("auto", "cpu", "cpu", "sgd") == "fp32"
    assert resolve_precision("bf16", "cpu", "eager", "sgd") == "bf16"
    for supported, optimizer, expected in (
        (True, "sgd", "bf16"),
        (False, "sgd", "fp16"),
        (False, "rmsprop", "fp32"),
    ):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported, **_: supported)
        assert resolve_precision("auto", "cuda", "eager", optimizer) == expected
    with pytest.raises(ConfigError, match="precision is bf16 with backend cpu, allowed are auto fp32"):
        resolve_precision("bf16", "cpu", "cpu", "sgd")
    with pytest.raises(
        ConfigError, match="precision is fp16 with optimizer rmsprop, allowed are auto fp32 bf16"
    ):
        resolve_precision("fp16", "cuda", "eager", "rmsprop")


def test_accuracy_counts_every_validation_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = child()
    logits = network.eval()(validation_images(DIGITS)).detach()
    right = int((logits.argmax(1) == DIGITS.validation_labels).sum())
    loss = -logits.double().log_softmax(1).gather(1, DIGITS.validation_labels[:, None]).mean()
    for batch in (7, 360, 1000):
        monkeypatch.setattr("pnas_fast.engine.evaluation.EVALUATION_BATCH", batch)
        found = evaluate(network, DIGITS)
        assert (found.correct, found.images) == (right, len(DIGITS.validation_labels))
        assert found.accuracy == right / found.images
        assert found.loss == pytest.approx(float(loss), rel=1e-5)


def validation_images(data: DataSet) -> Tensor:
    return (data.validation_images.float() - data.mean[:, None, None]) / data.std[:, None, None]


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_graph_on_a_card_has_the_bits_of_ordinary_steps(
    monkeypatch: pytest.MonkeyPatch, backend: str, optimizer: str, weights: str
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    data, cell = DIGITS.to("cuda"), Cell.parse("0:sep3x3+1:max_pool3x3,2:sep3x3+0:avg_pool3x3")
    settings = replace(
        SETTINGS, backend=backend, device="cuda", optimizer=optimizer, precision="auto", class_weights=weights
    )
    result, network = train_child(cell, settings, data, seed=4)
    monkeypatch.setattr("pnas_fast.evaluation.child.replayed", lambda step, *_: step)
    monkeypatch.setattr("pnas_fast.engine.evaluation.graphed", lambda step, *_, **__: step)
    again, plain = train_child(cell, settings, data, seed=4)
    assert result.error is again.error is None
    assert result.epoch_losses == again.epoch_losses
    assert network is not None
    assert plain is not None
    assert same_tensors(network.state_dict(), plain.state_dict())
