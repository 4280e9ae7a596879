"""Launches and bytes of a training step, counted."""

import pytest
import torch

from cells import PNASNET5
from pnas_fast.kernels import cost
from pnas_fast.kernels.triton.launch import recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import Cell

POOLS = Cell.parse("0:max_pool3x3+1:avg_pool3x3")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_pnasnet5_cell_keeps_within_the_limits(dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cost.main(["--dtype", dtype]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("within the limits")


def test_beyond_a_limit_the_program_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "MOST_BYTES", 0.1)
    assert cost.main(["--batch", "8"]) == 1
    assert "BEYOND" in capsys.readouterr().out.splitlines()[-1]


def test_it_counts_the_cell_it_says() -> None:
    assert str(Cell.parse(PNASNET5)) == str(Cell.parse(cost.CELLS["PNASNet-5"]))


def test_launches_of_a_small_cell() -> None:
    """A launch for each convolution and each block forward, one for each and each side backward."""
    launches, rest = cost.fused_launches(POOLS, 4, 2, torch.float32)
    # The stem, an alignment of each input but the first cell's raw one, one cell's pool before its 1×1.
    convolutions, adds, pools = 1 + 2 * 6 - 1 + 1, 6, 1
    names = [launch.kernel.__name__ for launch in launches]
    assert len(names) == 2 * convolutions + 3 * adds + 2 * pools + 2
    assert names.count("add_kernel") == adds + pools
    assert rest.launches <= 8


def test_bytes_of_one_operation() -> None:
    """An average of 2 × 12 × 8 × 8: read in both directions, written in one."""
    launches, _ = cost.fused_launches(POOLS, 4, 2, torch.bfloat16)
    (average,) = [launch for launch in launches if launch.kernel.__name__ == "average_kernel"]
    assert average.bytes == 2 * (2 * 16 * 8 * 8 + 2 * 16)


def test_eager_operations_are_counted_by_hand() -> None:
    x, weight = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(5, 3, 1, 1, requires_grad=True)
    with cost.CountOperations() as counted:
        torch.relu(torch.nn.functional.conv2d(x, weight)).view(-1).sum().backward()
    read, written, parameters = 96, 160, 15
    forward = (read + parameters + written) + 2 * written + (written + 1)
    # The sum's gradient is a view of one number; relu's reads it, its own result, and writes.
    backward = 3 * written + (written + parameters + read) * 2
    assert counted.launches == 3 + 1 + 1 + 2
    assert counted.bytes - 4 * (forward + backward) == 4 * 2
    assert x.grad is not None


def test_recording_runs_nothing_and_keeps_no_gradient() -> None:
    network = ChildNetwork(POOLS, 1, 4, 3, (3, 8, 8), backend="triton")
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with recording() as launches:
        network(images).sum().backward()
    assert launches
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
