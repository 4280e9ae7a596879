"""Operations of one cell that are alike go in one launch, and are as right as one by one."""

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracle import activation, compare
from pnas_fast.kernels import Backend, CellOutput, Side, get_backend
from pnas_fast.kernels.triton.launch import Launch, recording
from poison import poison_new_tensors
from where_triton_runs import BF16_ERROR, default_device

pytestmark = pytest.mark.slow

TRITON = get_backend("triton")
SHAPE = (2, 5, 4, 3)


@pytest.fixture(autouse=True)
def where_they_run() -> Iterator[None]:
    with default_device():
        yield


@pytest.fixture(autouse=True)
def poisoned(where_they_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def norm_for(weights: list[Tensor], filters: int, **settings: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(filters, eps=0.5, **settings).to(weights[0].dtype)


def random_weights(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape) for shape in shapes]


def blocks_of(backend: Backend[Any], pairs: list[tuple[Side[Any], Side[Any]]]) -> Any:
    output = CellOutput(len(pairs))
    blocks = [backend.add(*pair, output, index) for index, pair in enumerate(pairs)]
    return backend.concatenate(blocks, output)


def launches_of(operation: Any, shapes: list[tuple[int, ...]], weights: list[Tensor]) -> list[Launch]:
    """Forward and backward, without the addition by which results are materialised."""
    sources = [activation(*shape).requires_grad_() for shape in shapes]
    weights = [weight.clone().requires_grad_() for weight in weights]
    with recording() as launches:
        TRITON.materialise(operation(TRITON, sources, weights, None)).sum().backward()  # type: ignore[no-untyped-call]
    kernels = [launch.kernel.__name__ for launch in launches]
    first, last = kernels.index("add_backward_kernel"), kernels.index("add_backward_kernel") - 1
    return launches[:last] + launches[first + 1 :]


def names_of(launches: list[Launch]) -> Counter[str]:
    return Counter(launch.kernel.__name__.removesuffix("_kernel") for launch in launches)


def cell(kept: bool = False, stride: int = 1, pool: Any = "max") -> Any:
    """Both inputs aligned, a separable convolution of each, each added to a pool of what it read."""

    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        states = [backend.convolution(x[i], w[i], norm_for(w, 7)) for i in range(2)]
        keep = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1).to(x[0].dtype) if kept else None
        pairs = []
        for i, state in enumerate(states):
            first, second, third, fourth = w[2 + 4 * i : 6 + 4 * i]
            half = backend.separable(state, first, second, norm_for(w, 7), stride=stride)
            whole = backend.separable(half, third, fourth, norm_for(w, 7))
            pairs.append((Side(whole, keep=keep), Side(state, pool, stride)))
        return blocks_of(backend, pairs)

    return operation


CELL_WEIGHTS = [(7, 5, 1, 1)] * 2 + [(7, 1, 3, 3), (7, 7, 1, 1)] * 4


@pytest.mark.parametrize("form", [{}, {"kept": True}, {"stride": 2, "pool": "avg"}], ids=str)
def test_two_branches_of_a_cell(form: dict[str, Any]) -> None:
    operation, weights = cell(**form), random_weights(*CELL_WEIGHTS)
    compare(TRITON, operation, [activation(*SHAPE) for _ in range(2)], weights)
    assert names_of(launches_of(operation, [SHAPE] * 2, weights)) == {
        **{"dense": 1, "pointwise_backward": 1, "separable": 2, "separable_backward": 2},
        **{"add": 1, "add_backward": 1},
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision(dtype: torch.dtype) -> None:
    """From sources in that type: after a norm or two true gradients may be as small as its rounding."""

    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        x = [one.to(dtype) for one in x] if backend is TRITON else x
        states = [backend.separable(x[i], w[2 * i], w[2 * i + 1], norm_for(w, 24)) for i in range(2)]
        return blocks_of(backend, [(Side(states[0]), Side(states[1]))])

    shape, weights = (2, 24, 4, 4), random_weights(*[(24, 1, 3, 3), (24, 24, 1, 1)] * 2)
    sources = [activation(*shape).to(dtype).float() for _ in range(2)]
    forward, gradient = 2 * (BF16_ERROR,) if dtype == torch.bfloat16 else (2e-3, 6e-3)
    compare(TRITON, operation, sources, weights, forward=forward, gradient=gradient)


@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 7), (1, 1)), ((7, 1), (2, 1)), ((1, 1), (2, 2))], ids=str
)
def test_dense_convolutions(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        states = [backend.convolution(x[i], w[i], norm_for(w, 6), stride=stride) for i in range(2)]
        return blocks_of(backend, [(Side(states[0]), Side(states[1]))])

    check_dense(operation, random_weights(*[(6, 40, *kernel)] * 2))


def test_factorized_reductions() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        states = [backend.factorized_reduction(x[i], w[i], w[2 + i], norm_for(w, 9)) for i in range(2)]
        return blocks_of(backend, [(Side(states[0]), Side(states[1]))])

    check_dense(operation, random_weights(*[(4, 40, 1, 1)] * 2, *[(5, 40, 1, 1)] * 2))


def check_dense(operation: Any, weights: list[Tensor]) -> None:
    shape = (2, 40, 5, 4)
    compare(TRITON, operation, [activation(*shape) for _ in range(2)], weights)
    assert names_of(launches_of(operation, [shape] * 2, weights)) == {
        **{"dense": 1, "dense_backward": 1, "add": 1, "add_backward": 1}
    }


@pytest.mark.parametrize(
    ("shape", "filters"), [((2, 5, 4, 3), 7), ((1, 3, 5, 8), 5), ((2, 4, 8, 8), 72)], ids=str
)
@pytest.mark.parametrize("training", [True, False])
def test_what_a_separable_alone_reads_is_handed_on(
    shape: tuple[int, ...], filters: int, training: bool
) -> None:
    """The gradient of a sum, to be multiplied there: of maps with and without strips that end outside."""

    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        norms = [norm_for(w, filters).train(training) for _ in range(2)]
        one, two = (backend.separable(x[i], w[2 * i], w[2 * i + 1], norms[i]) for i in range(2))
        return blocks_of(backend, [(Side(one), Side(two, "avg"))])

    c = shape[1]
    weights = random_weights(*[(c, 1, 3, 3), (filters, c, 1, 1)] * 2)
    compare(TRITON, operation, [activation(*shape) for _ in range(2)], weights)
    (backward,) = [
        launch
        for launch in launches_of(operation, [shape] * 2, weights)
        if launch.kernel.__name__ == "separable_backward_kernel"
    ]
    assert backward.arguments["pending"] == 0b01


def test_a_separable_of_two_readers_or_with_a_multiplier_is_not_handed_on() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        one, two = (backend.separable(x[i], w[2 * i], w[2 * i + 1], norm_for(w, 7)) for i in range(2))
        keep = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1).to(x[0].dtype)
        three = backend.convolution(one, w[4], norm_for(w, 7))
        return blocks_of(backend, [(Side(one), Side(three)), (Side(two, keep=keep), Side(three))])

    weights = random_weights(*[(5, 1, 3, 3), (7, 5, 1, 1)] * 2, (7, 7, 1, 1))
    compare(TRITON, operation, [activation(*SHAPE) for _ in range(2)], weights)
    pending = [
        launch.arguments["pending"]
        for launch in launches_of(operation, [SHAPE] * 2, weights)
        if launch.kernel.__name__ == "separable_backward_kernel"
    ]
    assert set(pending) == {0}


def test_one_gradient_is_begun_and_another_added_to() -> None:
    """The first input is read again by what comes later, so its gradient is already there."""

    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        first, second = (backend.convolution(x[i], w[i], norm_for(w, 7)) for i in range(2))
        one, two = (backend.convolution(x, w[2 + i], norm_for(w, 7)) for i, x in enumerate((first, second)))
        return blocks_of(backend, [(Side(one), Side(first)), (Side(two, "avg"), Side(two))])

    weights = random_weights(*[(7, 5, 1, 1)] * 2, *[(7, 7, 1, 1)] * 2)
    compare(TRITON, operation, [activation(*SHAPE) for _ in range(2)], weights)
    backwards = [
        launch.arguments["accumulate"]
        for launch in launches_of(operation, [SHAPE] * 2, weights)
        if launch.kernel.__name__ == "pointwise_backward_kernel"
    ]
    assert backwards == [0b01, 0]


def test_readers_of_one_source_do_not_go_together() -> None:
    """Both add to its gradient."""

    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        state = backend.convolution(x[0], w[0], norm_for(w, 7))
        one, two = (backend.convolution(state, w[1 + i], norm_for(w, 7)) for i in range(2))
        return blocks_of(backend, [(Side(one), Side(two)), (Side(two), Side(one))])

    weights = random_weights((7, 5, 1, 1), *[(7, 7, 1, 1)] * 2)
    compare(TRITON, operation, [activation(*SHAPE)], weights)
    assert names_of(launches_of(operation, [SHAPE], weights))["dense"] == 3


def test_no_more_than_two_go_together() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        states = [backend.convolution(x[i], w[i], norm_for(w, 7)) for i in range(3)]
        return blocks_of(backend, [(Side(states[0]), Side(states[1])), (Side(states[1]), Side(states[2]))])

    weights = random_weights(*[(7, 5, 1, 1)] * 3)
    compare(TRITON, operation, [activation(*SHAPE) for _ in range(3)], weights)
    assert names_of(launches_of(operation, [SHAPE] * 3, weights))["dense"] == 2


@pytest.mark.parametrize("settings", [{"momentum": None}, {"momentum": 0.3}])
def test_unlike_norms_do_not_go_together(settings: dict[str, Any]) -> None:
    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        norms = norm_for(w, 7), norm_for(w, 7, **settings)
        states = [backend.convolution(x[i], w[i], own) for i, own in enumerate(norms)]
        return blocks_of(backend, [(Side(states[0]), Side(states[1]))])

    weights = random_weights(*[(7, 5, 1, 1)] * 2)
    assert names_of(launches_of(operation, [SHAPE] * 2, weights))["dense"] == 2


def test_a_result_that_only_one_reads_and_a_source_without_gradient() -> None:
    """Of two that went together one result is not used further, and the other's source wants nothing."""
    x = [activation(*SHAPE), activation(*SHAPE).requires_grad_()]
    weights = [weight.requires_grad_() for weight in random_weights(*[(7, 5, 1, 1)] * 2)]
    norms = [nn.BatchNorm2d(7, eps=0.5) for _ in range(2)]
    states = [TRITON.convolution(x[i], weights[i], norms[i]) for i in range(2)]
    TRITON.materialise(TRITON.add(Side(states[0]), Side(states[1]), CellOutput(1), 0))
    upstream = torch.randn(2, 7, 4, 3)
    got = torch.autograd.grad(TRITON.materialise(states[0]), [weights[0], norms[0].weight], upstream)
    eager = get_backend("eager")
    doubles = (
        x[0].double(),
        weights[0].detach().double().requires_grad_(),
        nn.BatchNorm2d(7, eps=0.5).double(),
    )
    out = eager.convolution(*doubles)
    expected = torch.autograd.grad(out, [doubles[1], doubles[2].weight], upstream.double())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_statistics_of_each_are_its_own() -> None:
    x, weights = [activation(*SHAPE) for _ in range(2)], random_weights(*[(7, 5, 1, 1)] * 2)
    norms = {name: [nn.BatchNorm2d(7) for _ in range(2)] for name in ("triton", "eager")}
    for name, own in norms.items():
        backend = get_backend(name)
        for _ in range(2):
            states = [backend.convolution(x[i], weights[i], own[i]) for i in range(2)]
            output = CellOutput(1)
            backend.materialise(
                backend.concatenate([backend.add(Side(states[0]), Side(states[1]), output, 0)], output)
            )
    for one, other in zip(*norms.values(), strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict())


def test_what_nobody_needs_is_not_computed() -> None:
    norm = nn.BatchNorm2d(7)
    state = TRITON.convolution(activation(*SHAPE), torch.randn(7, 5, 1, 1), norm)
    assert state.shape == (2, 7, 4, 3)
    assert norm.num_batches_tracked == 0
    TRITON.materialise(state)
    assert norm.num_batches_tracked == 1


def test_a_step_leaves_nothing_to_the_garbage_collector() -> None:
    """What it did would keep its activations, and its graph, until the collector comes."""
    weights = random_weights(*CELL_WEIGHTS)
    launches_of(cell(), [SHAPE] * 2, weights)
    gc.collect()
    gc.disable()
    try:
        launches_of(cell(), [SHAPE] * 2, weights)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_same_bits_twice() -> None:
    sources, weights = [activation(*SHAPE) for _ in range(2)], random_weights(*CELL_WEIGHTS)
    upstream, found = torch.randn(2, 14, 4, 3), []
    for _ in range(2):
        leaves = [leaf.clone().requires_grad_() for leaf in (*sources, *weights)]
        out = TRITON.materialise(cell()(TRITON, leaves[:2], leaves[2:], None))
        found.append((out, *torch.autograd.grad(out, leaves, upstream)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
