"""Launches and bytes of a training step, counted."""

import pytest
import torch

from cells import PNASNET5
from pnas_fast.kernel_tools import cost
from pnas_fast.kernels.operation_cost import Cost, CountOperations
from pnas_fast.kernels.triton.launch import recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell

POOLS = Cell.parse("0:max_pool3x3+1:avg_pool3x3")


@pytest.mark.parametrize("arguments", [[], ["--dtype", "float32", "--cell", PNASNET5]], ids=["bf16", "fp32"])
def test_the_pnasnet5_cell_keeps_within_the_limits(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cost.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("within the limits")
    named = [PNASNET5] if arguments else list(cost.CELLS)
    assert [line.partition(": ")[0] for line in lines[-len(named) - 1 : -1]] == named


def test_beyond_a_limit_the_program_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "MOST_BYTES", 0.1)
    assert cost.main(["--batch", "8", "--cell", str(POOLS)]) == 1
    assert "BEYOND" in capsys.readouterr().out.splitlines()[-1]


def test_it_counts_the_cell_it_says() -> None:
    assert str(Cell.parse(PNASNET5)) == str(Cell.parse(cost.CELLS["PNASNet-5"]))
    assert next(iter(cost.CELLS)) == "PNASNet-5"


@pytest.mark.parametrize("fused", [Cost(301, 1, 1), Cost(1, 46, 1), Cost(1, 1, 46)])
def test_each_limit_binds_by_itself(fused: Cost) -> None:
    eager = Cost(1000, 100, 100)
    assert not cost.Comparison(fused, eager).within
    assert cost.Comparison(Cost(300, 45, 45), eager).within


def test_launches_of_a_small_cell() -> None:
    """A launch for each convolution and each block forward and backward; two alignments of one shape go
    together.
    """
    launches, rest = cost.fused_launches(POOLS, 4, 2, torch.float32)
    # The stem, an alignment of each input but the first cell's raw one, one cell's pool before its 1×1.
    convolutions, adds, pools = 1 + 2 * 6 - 1 + 1, 6, 1
    # In the first cell the other input has the stem's channels; where maps halve and in the cell after that,
    # inputs differ.
    together = 6 - 1 - 1 - 2
    names = [launch.kernel.__name__ for launch in launches]
    assert len(names) == 2 * (convolutions - together) + 2 * adds + 2 * pools + 2
    assert names.count("add_kernel") == adds + pools
    assert rest.launches <= 8


def test_bytes_of_one_operation() -> None:
    """An average of 2 × 16 × 8 × 8 in bf16: what it reads and what it writes."""
    launches, _ = cost.fused_launches(POOLS, 4, 2, torch.bfloat16)
    (average,) = [launch for launch in launches if launch.kernel.__name__ == "average_kernel"]
    moved = 2 * (2 * 16 * 8 * 8 + 2 * 16)
    assert average.cost == Cost(1, moved, moved)


def test_a_second_pass_counts_once_more_by_passes_only() -> None:
    """The factorized reduction's backward reads input, output and gradient for both of its parts."""
    launches, _ = cost.fused_launches(POOLS, 4, 2, torch.float32)
    (stem,) = [x for x in launches if x.kernel.__name__ == "dense_backward_kernel" and x.arguments["KH"] == 3]
    assert stem.cost.bytes == stem.cost.once
    strided = [x for x in launches if x.kernel.__name__ == "dense_backward_kernel" and x.arguments["SY"] == 2]
    assert strided
    assert all(x.cost.bytes > x.cost.once for x in strided)


def test_eager_operations_are_counted_by_hand() -> None:
    x, weight = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(5, 3, 1, 1, requires_grad=True)
    with CountOperations() as counter:
        torch.relu(torch.nn.functional.conv2d(x, weight)).view(-1).sum().backward()  # type: ignore[no-untyped-call]
    read, written, parameters = 96, 160, 15
    forward = (read + parameters + written) + 2 * written + (written + 1)
    # The sum's gradient is a view of one number; relu's reads it, its own result, and writes.
    backward = 3 * written + (written + parameters + read) * 2
    counted = cost.total(counter.kinds)
    assert counted.launches == 3 + 1 + 1 + 2
    # Two numbers that have no more than one element: the first gradient, made of the sum.
    assert counted.bytes - 4 * (forward + backward) == 4 * 2
    assert counter.kinds["convolution_backward"] == Cost(2, 8 * (160 + 15 + 96), 4 * (160 + 2 * 15 + 2 * 96))
    assert x.grad is not None


def test_batch_norm_reads_twice_in_both_directions() -> None:
    x, norm = torch.randn(2, 3, 4, 4, requires_grad=True), torch.nn.BatchNorm2d(3)
    with CountOperations() as counter:
        norm(x).backward(torch.ones(2, 3, 4, 4))
    forward, backward = counter.kinds["native_batch_norm"], counter.kinds["native_batch_norm_backward"]
    assert forward.bytes - forward.once == 4 * 96
    assert backward.bytes - backward.once == 4 * 96 * 2


def test_recording_runs_nothing_and_keeps_no_gradient() -> None:
    network = ChildNetwork(POOLS, 1, 4, 3, (3, 8, 8), backend="triton")
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with recording() as launches:
        network(images).sum().backward()
    assert launches
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
