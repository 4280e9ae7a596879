"""A batch norm shared by processes: alone it is the plain one. Together: test_train_processes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore

from oracle import EAGER, FORWARD, GRADIENT, activation, new_norm, relative_error, run
from pnas_fast.kernels import Backend, get_backend, share_batch_norms
from pnas_fast.kernels.shared_norm import SharedBatchNorm2d
from where_triton_runs import DEVICE, default_device


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.fixture
def where_it_runs(backend: str) -> Iterator[None]:
    with default_device(DEVICE if backend == "triton" else "cpu"):
        yield


def operation(kernels: Backend[Any], sources: list[Tensor], weights: list[Tensor], norm: Any) -> Any:
    return kernels.convolution(sources[0], weights[0], norm)


@pytest.mark.usefixtures("alone", "where_it_runs")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["eager", "cpu", "triton"])
def test_alone_it_is_a_plain_norm(backend: str, training: bool) -> None:

    sources, weights, norm = (
        [activation(2, 8, 6, 6)],
        [torch.randn(16, 8, 1, 1)],
        new_norm(16).train(training),
    )
    upstream = torch.randn(2, 16, 6, 6)
    doubles = [sources[0].double()], [weights[0].double()]
    expected = run(EAGER, operation, *doubles, norm.double(), upstream)
    shared = SharedBatchNorm2d.of(norm.float())
    assert shared.training is training
    got = run(get_backend(backend), operation, sources, weights, shared, upstream)
    assert relative_error(got.out, expected.out) <= FORWARD
    for name, statistic in expected.statistics.items():
        assert relative_error(got.statistics[name], statistic) <= FORWARD, name
    for name, gradient in expected.gradients.items():
        found = got.gradients[name]
        assert found is not None
        assert gradient is not None
        assert relative_error(found, gradient) <= GRADIENT, name


def test_replacing_keeps_parameters_statistics_and_names() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Sequential(nn.BatchNorm2d(3, eps=0.5, momentum=0.25)))
    before = dict(network.state_dict(keep_vars=True))
    share_batch_norms(network)
    after = dict(network.state_dict(keep_vars=True))
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    norm = network.get_submodule("1.0")
    assert isinstance(norm, SharedBatchNorm2d)
    assert (norm.eps, norm.momentum) == (0.5, 0.25)
