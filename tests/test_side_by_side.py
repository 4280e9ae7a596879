"""Children trained in turns, step by step, in one process: each has the bits that it has alone."""

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch

from pnas_fast.data import DataSet, load
from pnas_fast.engine import TrainingSettings
from pnas_fast.engine import graph as graph_module
from pnas_fast.engine.graph import CudaGraph, GraphedStep, RecordedStep, Step, replayed
from pnas_fast.evaluation import ChildResult, ChildTraining, train_child
from pnas_fast.kernels.triton.planning import part_of
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell
from pnas_fast.threads import torch_threads
from where_triton_runs import INTERPRETED

SETTINGS = TrainingSettings(
    filters=4, batch=40, device="cpu", precision="fp32", drop_path=0.4, cutout=2, label_smoothing=0.1
)
DIGITS = load("digits").subset(200)


class Child(NamedTuple):
    """What a child's result depends on."""

    cell: str
    epochs: int
    seed: int
    data: DataSet = DIGITS

    def start(
        self, settings: TrainingSettings, report: Callable[[int], None] = lambda _: None
    ) -> ChildTraining:
        found = replace(settings, epochs=self.epochs)
        return ChildTraining(Cell.parse(self.cell), found, self.data, self.seed, report)

    def alone(self, settings: TrainingSettings) -> tuple[ChildResult, ChildNetwork | None]:
        found = replace(settings, epochs=self.epochs)
        return train_child(Cell.parse(self.cell), found, self.data, self.seed)


FIRST = Child("0:sep3x3+1:max_pool3x3,2:sep5x5+0:avg_pool3x3", 3, 4)
SECOND = Child("0:conv1x7_7x1+1:dil_conv3x3", 2, 9)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def in_turns(trainings: list[ChildTraining], steps: list[int]) -> None:
    """Advance those that have more to do by so many steps, over and over, disturbing what is global."""
    left, turns = list(trainings), itertools.cycle(steps)
    while left:
        left = [training for training in left if training.advance(next(turns))]
        torch.manual_seed(len(left))
        torch.rand(5)


def assert_same(training: ChildTraining, result: ChildResult, network: ChildNetwork | None) -> None:
    """All that a training gives, but for what a clock says."""
    told = [
        replace(one, seconds=0.0, evaluation_seconds=0.0, images_per_second=0.0)
        for one in (training.result, result)
    ]
    assert told[0] == told[1]
    assert (training.network is None) == (network is None)
    if network is not None and training.network is not None:
        one, other = training.network.state_dict(), network.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("backend", "precision", "steps"),
    [
        ("cpu", "fp32", [1]),
        ("cpu", "fp32", [2, 3, 1]),
        ("eager", "fp32", [1]),
        ("eager", "bf16", [2, 3, 1]),
        ("eager", "fp16", [1]),
    ],
)
def test_children_in_turns_have_the_bits_of_each_alone(
    backend: str, precision: str, steps: list[int]
) -> None:
    settings = replace(SETTINGS, backend=backend, precision=precision)
    trainings = [child.start(settings) for child in (FIRST, SECOND)]
    in_turns(trainings, steps)
    for training, child in zip(trainings, (FIRST, SECOND), strict=True):
        result, network = child.alone(settings)
        assert result.status == "done"
        assert_same(training, result, network)


class StandIn:
    """A graph that calls the step where a CUDA graph would replay it."""

    def __init__(self) -> None:
        self._step: Step = lambda: None

    def warm_up(self, step: Step) -> None:
        step()

    def capture(self, step: Step) -> None:
        self._step = step

    def replay(self) -> None:
        self._step()


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED, reason="needs Triton's interpreter")
def test_children_in_turns_on_interpreted_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pnas_fast.evaluation.child.resolve_backend", lambda name, device: name)
    monkeypatch.setattr(
        "pnas_fast.evaluation.child.replayed", lambda step, *_: GraphedStep(step, StandIn(), warm_up=1)
    )
    images = DIGITS.train_images[:4, :, 2:6, 2:6].contiguous()
    few = replace(
        DIGITS.subset(4),
        train_images=images,
        validation_images=images[:2],
        validation_labels=DIGITS.train_labels[:2],
    )
    settings = replace(SETTINGS, filters=1, repeats=1, batch=2, backend="triton")
    children = [Child("0:identity+1:identity", 1, seed, few) for seed in (4, 9)]
    trainings = [child.start(settings) for child in children]
    in_turns(trainings, [1])
    result, network = children[0].alone(settings)
    assert result.status == "done"
    assert_same(trainings[0], result, network)


@pytest.mark.parametrize("backend", ["cpu", "eager"])
def test_a_child_that_fails_changes_nothing_of_the_other(backend: str) -> None:
    settings = replace(SETTINGS, backend=backend)

    def explode(images: int) -> None:
        raise ValueError(f"after {images} images")

    failing, other = SECOND.start(settings, explode), FIRST.start(settings)
    in_turns([failing, other], [1])
    assert failing.result.status == "failed"
    assert failing.result.error == "ValueError: after 200 images"
    assert failing.network is None
    assert_same(other, *FIRST.alone(settings))


def test_what_was_drawn_before_it_started_changes_nothing() -> None:
    """A child may start while others are half done."""
    first, second = FIRST.start(SETTINGS), SECOND.start(SETTINGS)
    assert first.advance(7)
    in_turns([second, first], [1])
    assert_same(first, *FIRST.alone(SETTINGS))
    assert_same(second, *SECOND.alone(SETTINGS))


def test_after_its_end_a_training_stays_as_it_is() -> None:
    training = SECOND.start(replace(SETTINGS, epochs=1))
    assert training.advance(2 * 5)
    assert training.result.accuracy is None
    assert not training.advance(1)
    result, network = training.result, training.network
    before = replace(result)
    assert network is not None
    assert not training.advance(100)
    assert training.result is result
    assert result == before
    assert training.network is network


@pytest.mark.parametrize("share", [0, 1, 4])
def test_all_of_a_child_is_planned_for_its_share(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """Building, steps and evaluation; whoever else is at work between them is planned for another."""
    parts: set[int] = set()
    forward = ChildNetwork.forward

    def watched(self: ChildNetwork, images: torch.Tensor) -> Any:
        parts.add(part_of(120))
        return forward(self, images)

    monkeypatch.setattr(ChildNetwork, "forward", watched)
    training = SECOND.start(replace(SETTINGS, epochs=1, backend="eager", share=share))
    while training.advance(3):
        assert part_of(120) == 120
    assert training.result.status == "done"
    assert parts == {120 // (share or 1)}
    assert part_of(120) == 120


def test_a_training_that_is_given_up_leaves_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[weakref.ref[Any]] = []
    forward = ChildNetwork.forward

    def watched(self: ChildNetwork, images: torch.Tensor) -> Any:
        networks.append(weakref.ref(self))
        return forward(self, images)

    monkeypatch.setattr(ChildNetwork, "forward", watched)
    training = FIRST.start(SETTINGS)
    training.advance(2)
    assert networks[0]() is not None
    del training
    gc.collect()
    assert networks[0]() is None


@pytest.mark.parametrize(("backend", "kind"), [("cpu", RecordedStep), ("eager", None)])
def test_a_step_is_given_the_childs_generator(
    monkeypatch: pytest.MonkeyPatch, backend: str, kind: type | None
) -> None:
    """A graph has to know whose random numbers its step draws; two graphs never share a generator."""
    given: list[Any] = []

    def watched(step: Step, *rest: Any) -> Step:
        given.append(rest[-1])
        found = replayed(step, *rest)
        assert kind is None or isinstance(found, kind)
        return found

    monkeypatch.setattr("pnas_fast.evaluation.child.replayed", watched)
    trainings = [child.start(replace(SETTINGS, backend=backend)) for child in (FIRST, SECOND)]
    for training in trainings:
        training.advance(1)
    assert all(isinstance(generator, torch.Generator) for generator in given)
    assert given[0] is not given[1]


class Card:
    """Stand-ins for what `CudaGraph` uses of a card, and a journal of what it does there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        card, self.told, self.pools = self, list[Any](), list[Any]()
        self.fails_to_end = False
        made = itertools.count(1)

        class Stream:
            device = torch.device("cpu")

            def __init__(self, *_: Any) -> None:
                self.cuda_stream = next(made)

            def wait_stream(self, other: Any) -> None:
                card.told.append(f"{self.cuda_stream} after {other.cuda_stream}")

        class Graph:
            def register_generator_state(self, generator: torch.Generator) -> None:
                card.told.append(generator)

            def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
                assert capture_error_mode == "thread_local"
                assert not gc.isenabled()
                card.pools.append(pool)
                card.told.append(f"capture on {card.current.cuda_stream}")

            def capture_end(self) -> None:
                card.told.append("end")
                if card.fails_to_end:
                    raise RuntimeError("the capture is invalid")

            def replay(self) -> None:
                card.told.append(f"replay on {card.current.cuda_stream}")

        @contextmanager
        def on(stream: Any) -> Iterator[None]:
            before, card.current = card.current, stream
            try:
                yield
            finally:
                card.current = before

        self.default = self.current = Stream()
        self.new_stream: Callable[[], Any] = Stream
        self.on: Callable[[Any], AbstractContextManager[None]] = on
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "default_stream", lambda device=None: self.default)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
        monkeypatch.setattr(graph_module, "_broken", False)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    graph_module._place_of.cache_clear()
    yield Card(monkeypatch)
    graph_module._place_of.cache_clear()


def test_a_graph_is_told_of_the_generator_before_it_is_captured(card: Card) -> None:
    generator = torch.Generator()
    first, second = CudaGraph(generator), CudaGraph()
    card.told.clear()
    first.capture(lambda: card.told.append("step"))
    assert card.told == ["2 after 1", generator, "capture on 2", "step", "end", "1 after 2"]
    card.told.clear()
    second.capture(lambda: None)
    assert card.told == ["2 after 1", "capture on 2", "end", "1 after 2"]
    assert gc.isenabled()


def test_a_childs_graphs_are_captured_on_its_stream_in_its_memory(card: Card) -> None:
    """The next child of a stream has the memory of the one before."""
    streams = [card.new_stream() for _ in range(2)]
    steps = []
    for stream in (*streams, *streams):
        with card.on(stream):
            steps.append((stream, GraphedStep(lambda: card.told.append("step"), CudaGraph(), warm_up=1)))
    card.told.clear()
    for stream, step in steps:
        with card.on(stream):
            step()
            step()
    numbers = [stream.cuda_stream for stream, _ in steps]
    here = [line for line in card.told if "on" in str(line)]
    assert here == [f"{what} on {number}" for number in numbers for what in ("capture", "replay")]
    one, other, again, other_again = card.pools[-4:]
    assert one is again
    assert other is other_again
    assert one is not other


def test_a_capture_that_fails_is_ended_and_says_why(card: Card) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("out of memory")

    graph = CudaGraph()
    with pytest.raises(torch.OutOfMemoryError):
        graph.capture(fail)
    assert card.told[-1] == "end"
    assert gc.isenabled()
    assert graph_module.capturing_works()
    card.fails_to_end = True
    with pytest.raises(torch.OutOfMemoryError):
        graph.capture(fail)
    assert not graph_module.capturing_works()
