"""Whatever is keyed by operation knows every operation of the space."""

from typing import Any

import pytest
import torch

from pnas_fast.export import walk
from pnas_fast.kernels import CellOutput, get_backend
from pnas_fast.network.layers import Shape
from pnas_fast.network.operations import EXTRA_OPERATIONS, Stack, build_operation
from pnas_fast.report.palette import OPERATION_STYLES
from pnas_fast.space import OPERATION_TABLE, OPERATIONS, Cell, effort

PLACES = {"inside": (8, 1), "wider": (6, 1), "strided": (8, 2), "strided and wider": (6, 2)}
"""Channels that an operation reads, of which it makes 8, and its stride."""


def test_codes_are_those_that_stored_cells_rely_on() -> None:
    names = "sep3x3 sep5x5 sep7x7 conv1x7_7x1 identity avg_pool3x3 max_pool3x3 dil_conv3x3"
    assert " ".join(OPERATIONS) == names
    assert not set(OPERATIONS) & set(EXTRA_OPERATIONS)


def test_rows_can_be_told_apart() -> None:
    for column in ("name", "label", "colour"):
        assert len({getattr(row, column) for row in OPERATION_TABLE}) == len(OPERATION_TABLE), column


@pytest.mark.parametrize("row", OPERATION_TABLE, ids=OPERATIONS)
def test_the_table_reaches_figures_and_efforts(row: Any) -> None:
    style = OPERATION_STYLES[row.name]
    assert (style.name, style.size, style.label) == (row.kind, row.size, row.label)
    assert row.effort >= 0
    cell = Cell.parse(f"0:{row.name}+1:{row.name},2:{row.name}+0:identity")
    assert effort(cell) == pytest.approx(3 * row.effort + effort(Cell.parse("0:identity+0:identity")) / 2)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_a_module_and_a_backend_s_part(name: str, place: str, backend: str) -> None:
    channels, stride = PLACES[place]
    engine = get_backend(backend)
    module = build_operation(name, engine, Shape(channels, 8, 8), 8, stride)
    x = torch.randn(2, channels, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    size = 8 // stride
    result = engine.materialise(engine.add(module(x), module(x), CellOutput(1), 0))
    assert result.shape == (2, 8, size, size)
    result.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("place", PLACES)
def test_a_rule_that_writes_it_as_onnx(name: str, place: str) -> None:
    channels, stride = PLACES[place]
    modules = [build_operation(name, get_backend("eager"), Shape(channels, 8, 8), 8, stride)]
    without_a_rule = walk._write.dispatch(object)
    while modules:
        module = modules.pop()
        assert walk._write.dispatch(type(module)) is not without_a_rule, type(module)
        modules += list(module.layers) if isinstance(module, Stack) else []
        project = getattr(module, "project", None)
        modules += [] if project is None else [project]
