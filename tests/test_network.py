"""Child networks: sizes that are known exactly, every operation, and that they learn."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from cells import PNASNET5, cells, cells_of
from pnas_fast.network import ChildNetwork
from pnas_fast.space import OPERATIONS, Cell


def child(
    text: str,
    repeats: int = 1,
    filters: int = 4,
    shape: tuple[int, int, int] = (3, 8, 8),
    drop_path: float = 0.0,
) -> ChildNetwork:
    return ChildNetwork(Cell.parse(text), repeats, filters, 10, shape, drop_path=drop_path)


@pytest.mark.parametrize(
    ("repeats", "filters", "parameters", "multiply_adds"),
    [(2, 24, 559_090, 112_046_784), (3, 48, 3_189_082, 574_891_392)],
)
def test_pnasnet5_has_the_published_size(
    repeats: int, filters: int, parameters: int, multiply_adds: int
) -> None:
    network = child(PNASNET5, repeats, filters, (3, 32, 32))
    assert network.parameters_count == parameters
    assert network.multiply_adds == multiply_adds


@settings(max_examples=10, deadline=None)
@given(cells(), st.integers(1, 2), st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13)))
def test_multiply_adds_are_those_of_the_convolutions_run(
    cell: Cell, repeats: int, shape: tuple[int, int, int]
) -> None:
    network = ChildNetwork(cell, repeats, 4, 7, shape)
    with FlopCounterMode(display=False) as counter:
        logits = network(torch.randn(2, *shape))
    assert logits.shape == (2, 7)
    assert counter.get_total_flops() == 2 * 2 * network.multiply_adds


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [8, 13, 32])
def test_a_cell_of_one_operation_learns(operation: str, size: int) -> None:
    torch.manual_seed(0)
    network = child(f"0:{operation}+1:{operation}", filters=6, shape=(3, size, size))
    labels = torch.arange(20) % 10
    images = torch.randn(10, 3, 1, 1)[labels] + 0.1 * torch.randn(20, 3, size, size)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.7 * losses[0]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_parameter_gets_a_gradient(operation: str) -> None:
    text = f"0:{operation}+1:{operation},2:{operation}+0:{operation}"
    network = child(text, repeats=2)
    network(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_strides_and_filters_change_at_cells_n_and_2n() -> None:
    network = child("0:sep3x3+1:identity,2:sep3x3+1:identity", repeats=2, filters=4, shape=(1, 13, 13))
    shapes = [tuple(cell.shape) for cell in cells_of(network)]
    assert shapes == [(8, 13, 13)] * 2 + [(16, 7, 7)] * 2 + [(32, 4, 4)] * 2


def test_the_first_cell_reads_the_raw_stem_and_later_ones_are_aligned() -> None:
    network = child("0:identity+1:identity", repeats=2)
    kinds = [type(cell.align_before).__name__ for cell in network.cells]
    # cell 1 sees the stem (3F channels), cell 2 is the first with twice the filters, cell 3 a larger map
    assert kinds == [
        "NoneType",
        "Convolution",
        "Convolution",
        "FactorizedReduction",
        "Convolution",
        "FactorizedReduction",
    ]


def test_evaluation_uses_running_statistics_and_does_not_depend_on_the_batch() -> None:
    network = child(PNASNET5)
    for _ in range(3):
        network(torch.randn(16, 3, 8, 8))
    network.eval()
    images = torch.randn(5, 3, 8, 8)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_drop_path_drops_whole_images_deeper_cells_more_and_identities_never() -> None:
    network = child("0:sep3x3+1:identity", repeats=1, filters=4, drop_path=0.6)
    network.set_progress(0.5)
    torch.testing.assert_close(network.drop.keep().flatten(), torch.tensor([0.9, 0.8, 0.7]))
    network.set_progress(torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(network.drop.keep().flatten(), torch.tensor([0.8, 0.6, 0.4]))
    network.drop.draw(2000)
    state = torch.zeros(2000, 3, 4, 4, dtype=torch.bfloat16)
    masks = [cell.drop.mask(0, state.float()) for cell in cells_of(network)]
    for mask, keep in zip(masks, network.drop.keep(), strict=True):
        assert mask.shape == (2000, 1, 1, 1)
        assert set(mask.unique().tolist()) == {0.0, float(1 / keep)}
        assert mask.mean().item() == pytest.approx(1.0, abs=0.15)
    together = torch.cat(masks, dim=1).flatten(1).T
    assert torch.corrcoef(together).fill_diagonal_(0).abs().max() < 5 / 2000**0.5
    last = cells_of(network)[2]
    assert last.drop.mask(0, state).dtype == torch.bfloat16
    block = last.blocks[0]
    assert block.places == [0, None]
    assert block._kept(block.right(torch.zeros(2000, 16, 2, 2)), None).keep is None
    assert block._kept(block.left(torch.zeros(2000, 16, 2, 2)), 0).keep is not None
    network.eval()
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(network(images), network(images), rtol=0, atol=0)


def test_shares_of_a_batch_have_the_masks_of_the_whole() -> None:
    network = child("0:sep3x3+1:max_pool3x3", repeats=1, filters=4, drop_path=0.6)
    network.set_progress(1.0)
    drawn = []
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        network.share_drop_path(rank, size)
        torch.manual_seed(3)
        network.drop.draw(20 // size)
        drawn.append(torch.cat([cell.drop.masks for cell in cells_of(network)]))
    assert torch.equal(drawn[0], torch.cat(drawn[1:], dim=1))
    assert len(set(drawn[0].flatten().tolist())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": 0}, "repeats is 0"),
        ({"filters": 0}, "filters is 0"),
        ({"shape": (3, 0, 8)}, "image_shape"),
    ],
)
def test_sizes_below_one_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        child("0:sep3x3+1:identity", **arguments)  # type: ignore[arg-type]


def test_parameters_do_not_depend_on_how_the_image_is_laid_out() -> None:
    torch.manual_seed(1)
    network = child(PNASNET5).eval()
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(network(images), network(images.to(memory_format=torch.channels_last)))
