"""Updates of parameters that lie side by side: those of PyTorch's own classes, whatever the layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pnas_fast.engine import TrainingSettings
from pnas_fast.engine.flat import ALIGN, PIECES, Flat
from pnas_fast.engine.optimizer import SGD

RECIPE = TrainingSettings(weight_decay=1e-2, clip=0.5)

LAYOUTS: Sequence[Callable[[Tensor], Tensor]] = (
    lambda x: x,
    lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
    lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
)
SIZES = st.one_of(
    st.tuples(st.integers(1, 9)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(*[st.integers(1, 4)] * 4),
)


def made(sizes: Sequence[tuple[int, ...]], layouts: Sequence[int], seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    return [nn.Parameter(LAYOUTS[layout](x)) for x, layout in zip(values, layouts, strict=True)]


def plain(parameters: Sequence[nn.Parameter]) -> torch.optim.SGD:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": RECIPE.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=0.3, momentum=0.9, nesterov=True)


def updater(parameters: Sequence[nn.Parameter], clip: float = RECIPE.clip) -> SGD:
    return SGD(parameters, replace(RECIPE, clip=clip), torch.tensor(0.3, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(
    tensors=st.lists(
        st.tuples(SIZES, st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=7
    ),
    scale=st.sampled_from([0.01, 3.0]),
    seed=st.integers(0, 2**31),
)
def test_updates_are_those_of_pytorch(
    tensors: list[tuple[tuple[int, ...], int, bool, bool]], scale: float, seed: int
) -> None:
    """Three steps; some parameters have no gradient, ever, and some lie otherwise than in order."""
    sizes, layouts, used, _ = zip(*tensors, strict=True)
    own, theirs = made(sizes, layouts, seed), made(sizes, layouts, seed)
    ours, reference = updater(own), plain(theirs)
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(3):
        for one, other, wanted in zip(own, theirs, used, strict=True):
            if wanted:
                other.grad = scale * torch.randn(other.shape, generator=generator, dtype=torch.float64)
                one.grad = torch.empty_like(one).copy_(other.grad)
        # What a step's memory held before is of no matter.
        torch.empty(1000, dtype=torch.float64).fill_(float("nan"))
        ours.step()
        nn.utils.clip_grad_norm_([p for p in theirs if p.grad is not None], RECIPE.clip)
        reference.step()
    for one, other, size in zip(own, theirs, sizes, strict=True):
        assert one.shape == size
        assert float((one - other).detach().norm()) <= 1e-13 * float(other.detach().norm())
        assert one.stride() == other.stride()
        assert one.data_ptr() % 16 == 0
        memory = reference.state[other].get("momentum_buffer")
        kept = ours.state[one]["momentum_buffer"]
        assert torch.allclose(
            kept, torch.zeros_like(kept) if memory is None else memory, rtol=1e-12, atol=1e-15
        )


def test_nothing_is_clipped_where_that_is_not_asked() -> None:
    own, theirs = made([(3, 5), (4,)], [0, 0], 1), made([(3, 5), (4,)], [0, 0], 1)
    ours, reference = updater(own, clip=0.0), plain(theirs)
    for one, other in zip(own, theirs, strict=True):
        other.grad = 50 * torch.ones_like(other)
        one.grad = other.grad.clone()
    ours.step()
    reference.step()
    assert all(torch.allclose(one, other, rtol=1e-14) for one, other in zip(own, theirs, strict=True))


def test_pieces_cover_what_has_gradients_once() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.zeros(int(n)) for n in torch.randint(1, 5000, (90,), generator=generator)]
    flat = Flat(tensors)
    given = [tensor if index % 7 else None for index, tensor in enumerate(tensors)]
    for first, end in ((0, 90), (0, 40), (40, 90), (7, 8), (0, 0)):
        covered = torch.zeros(len(flat.memory), dtype=torch.int32)
        pieces = flat.runs(given, first, end)
        for piece in pieces:
            assert piece.start % ALIGN == piece.stop % ALIGN == 0
            covered[piece] += 1
        expected = torch.zeros_like(covered)
        for index in range(first, end):
            if given[index] is not None:
                expected[flat.starts[index] : flat.starts[index + 1]] = 1
        assert torch.equal(covered, expected)
        assert len(pieces) <= PIECES + sum(x is None for x in given)
    assert len(flat.runs(tensors, 0, 90)) <= PIECES


@pytest.mark.parametrize("thing", ["parameter", "momentum_buffer"])
def test_what_was_moved_is_not_updated_in_vain(thing: str) -> None:
    parameters = made([(3, 5), (4,)], [0, 0], 1)
    ours = updater(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    ours.step()
    if thing == "parameter":
        parameters[1].data = parameters[1].data.clone()
    else:
        ours.state[parameters[1]][thing] = ours.state[parameters[1]][thing].clone()
    with pytest.raises(ValueError, match=r"optimiser: a parameter or its momentum_buffer was moved"):
        ours.step()


def test_a_gradient_or_a_parameter_with_gaps_is_refused() -> None:
    parameters = made([(3, 5)], [0], 1)
    ours = updater(parameters)
    parameters[0].grad = torch.ones(5, 3, dtype=torch.float64).T
    with pytest.raises(ValueError, match=r"a gradient is \(3, 5\) with strides \(1, 3\), allowed is"):
        ours.step()
    with pytest.raises(
        ValueError, match=r"a parameter is \(3,\) with strides \(2,\), allowed is one without"
    ):
        updater([nn.Parameter(torch.zeros(6)[::2])])
