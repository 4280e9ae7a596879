"""A sum's gradient that goes to a convolution as it is, to be multiplied there by the scale of its norm."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracle import activation, compare
from pnas_fast.kernels import Backend, CellOutput, Side
from pnas_fast.kernels.cpu import CpuPrimitives
from pnas_fast.kernels.fused import Backward, Convolution, FusedBackend, Gradients, SumBackward
from pnas_fast.kernels.recording import Recording
from poison import poison_new_tensors

Make = Callable[[Backend[Any], Tensor, Sequence[Tensor], nn.BatchNorm2d], Any]
KINDS: dict[str, tuple[list[tuple[int, ...]], Make]] = {
    "separable": ([(5, 1, 3, 3), (13, 5, 1, 1)], lambda b, x, w, norm: b.separable(x, w[0], w[1], norm)),
    "pointwise": ([(13, 5, 1, 1)], lambda b, x, w, norm: b.convolution(x, w[0], norm)),
    "by points": ([(24, 16, 1, 7)], lambda b, x, w, norm: b.convolution(x, w[0], norm)),
    "strided": ([(13, 5, 7, 1)], lambda b, x, w, norm: b.convolution(x, w[0], norm, stride=(2, 1))),
    "factorized": (
        [(6, 5, 1, 1), (7, 5, 1, 1)],
        lambda b, x, w, norm: b.factorized_reduction(x, w[0], w[1], norm),
    ),
}
"""Shapes of the weights, and the operation, of each."""


class Watched(CpuPrimitives):
    """The CPU's kernels, which note whose gradient is pending."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[bool] = []

    def convolutions_backward(
        self, convolution: Convolution, problems: Sequence[Backward]
    ) -> list[Gradients]:
        self.pending += [problem.result.pending for problem in problems]
        return super().convolutions_backward(convolution, problems)


def norm_for(weights: Sequence[Tensor], filters: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(filters, eps=0.5).to(weights[0].dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1.5, 2.0, filters))
    assert norm.running_var is not None
    norm.running_var.fill_(0.3)
    return norm


def blocks_of(backend: Backend[Any], pairs: list[tuple[Side[Any], Side[Any]]]) -> Any:
    output = CellOutput(len(pairs))
    blocks = [backend.add(*pair, output, index) for index, pair in enumerate(pairs)]
    return backend.concatenate(blocks, output)


def random_weights(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    return [torch.randn(shape) / shape[1] ** 0.5 for shape in shapes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_what_one_sum_alone_reads(kind: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of two blocks, each block's gradient being a slice of the concatenation's."""
    shapes, make = KINDS[kind]
    filters = sum(shape[0] for shape in shapes[-2:]) if kind == "factorized" else shapes[-1][0]

    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        norms = [norm_for(w, filters).train(training) for _ in range(4)]
        states = [make(backend, x[0], w[i :: len(norms)], norms[i]) for i in range(len(norms))]
        pairs = [(Side(states[0]), Side(states[1])), (Side(states[2], "avg"), Side(states[3]))]
        return blocks_of(backend, pairs)

    poison_new_tensors(monkeypatch)
    watched = Watched()
    weights = random_weights([shape for shape in shapes for _ in range(4)])
    compare(FusedBackend(watched), operation, [activation(3, max(5, shapes[0][1]), 7, 6)], weights)
    assert sorted(watched.pending) == [False, True, True, True]


def test_what_is_read_twice_or_multiplied_is_not_handed_on() -> None:
    def operation(backend: Backend[Any], x: list[Tensor], w: list[Tensor], norm: Any) -> Any:
        keep = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1).to(x[0].dtype)
        one, two, three = (backend.convolution(x[0], weight, norm_for(w, 7)) for weight in w)
        return blocks_of(backend, [(Side(one), Side(two, keep=keep)), (Side(three, "max"), Side(one))])

    watched = Watched()
    compare(FusedBackend(watched), operation, [activation(2, 5, 4, 3)], random_weights([(7, 5, 1, 1)] * 3))
    assert watched.pending == [False] * 3


def test_sides_done_together_have_the_bits_of_each_alone() -> None:
    """Also of one state on both sides, whose second gradient is added to the first."""

    class Apart(CpuPrimitives):
        def adds_backward(self, problems: Sequence[SumBackward]) -> None:
            for problem in problems:
                super().adds_backward([problem])

    x = [activation(19, 24, 9, 9).requires_grad_() for _ in range(3)]
    weights = [w.requires_grad_() for w in random_weights([(24, 24, 1, 1)] * 3)]

    def gradients(primitives: CpuPrimitives) -> Sequence[Tensor]:
        backend = FusedBackend(primitives)
        a, b, c = (
            backend.convolution(one, w, norm_for(weights, 24)) for one, w in zip(x, weights, strict=True)
        )
        pairs: list[tuple[Side[Any], Side[Any]]] = [
            (Side(a, "max"), Side(b)),
            (Side(b, "max"), Side(b, "avg")),
            (Side(x[0]), Side(c)),
        ]
        out = backend.materialise(blocks_of(backend, pairs))
        return torch.autograd.grad(out, [*x, *weights], torch.sin(torch.arange(out.numel())).view(out.shape))

    assert all(map(torch.equal, gradients(CpuPrimitives()), gradients(Apart())))


def test_a_step_done_again_has_the_same_bits() -> None:
    """What is handed on stays where it is, whatever memory is given away meanwhile."""
    backend = FusedBackend(Watched())
    x, weights = activation(2, 5, 6, 6), [w.requires_grad_() for w in random_weights([(7, 5, 1, 1)] * 4)]
    norms = [norm_for(weights, 7) for _ in weights]

    def step() -> None:
        states = [backend.convolution(x, *own) for own in zip(weights, norms, strict=True)]
        out = blocks_of(
            backend, [(Side(states[0]), Side(states[1])), (Side(states[2], "max"), Side(states[3]))]
        )
        for weight in weights:
            weight.grad = None
        out = backend.materialise(out)
        (out * out).sum().backward()  # type: ignore[no-untyped-call]

    step()
    expected = [weight.grad for weight in weights]
    recording = Recording()
    recording.record(step)
    assert recording.refusal is None
    found = [weight.grad for weight in weights]
    for _ in range(2):
        for gradient in found:
            assert gradient is not None
            gradient.fill_(float("nan"))
        recording.replay()
        for one, other in zip(expected, found, strict=True):
            assert one is not None
            assert other is not None
            assert torch.equal(one, other)
