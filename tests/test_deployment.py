"""Parameters and multiply-adds of networks to be deployed, against networks that are built."""

import numpy as np
import pytest
import torch

from pnas_fast.network import ChildNetwork
from pnas_fast.objectives.counted import COUNTED, counted
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Block, Cell
from pnas_fast.space.neighbours import draw

SMALL = Deployment(1, 8, (1, 8, 8), 10)
ODD = Deployment(2, 5, (3, 33, 17), 7)


@pytest.mark.parametrize("deployment", [SMALL, ODD])
def test_counts_are_those_of_built_networks(deployment: Deployment) -> None:
    costs = counted(deployment)
    assert tuple(costs) == COUNTED
    rng = np.random.default_rng(3)
    cells = [draw(1 + index % MAX_BLOCKS, OPERATIONS, rng) for index in range(15)]
    cells += [Cell((Block(0, name, 1, name), Block(2, name, 2, name))) for name in OPERATIONS]
    for cell in cells:
        with torch.device("meta"):
            network = ChildNetwork(
                cell, deployment.repeats, deployment.filters, deployment.classes, deployment.image_shape
            )
        expected = [network.parameters_count, network.multiply_adds]
        assert [costs[name].before(cell.codes[np.newaxis])[0] for name in COUNTED] == expected, cell
    assert all(cost.grows for cost in costs.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Deployment(1, 8, (1, 8, 9), 10)),
        ("repeats=6,filters=44,image=32,batch=4", Deployment(6, 44, (1, 32, 32), 10, 4)),
        ("image=224x160", Deployment(1, 8, (1, 224, 160), 10)),
        (" batch=2 ,repeats=3", Deployment(3, 8, (1, 8, 9), 10, 2)),
    ],
)
def test_what_a_text_leaves_out_is_as_the_child_has_it(text: str, expected: Deployment) -> None:
    found = Deployment.of(text, 1, 8, (1, 8, 9), 10)
    assert found == expected
    assert Deployment.of(str(found), 9, 9, (1, 9, 9), 10) == expected


@pytest.mark.parametrize(
    "text",
    ["6", "repeats", "repeats=0", "repeats=101", "filters=-1", "image=8x0", "image=9999", "repeats=2x2",
     "stem=3", "batch=1,batch=1", "repeats=1;filters=2", "filters=1e3"],
)  # fmt: skip
def test_a_text_that_is_no_deployment_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"deploy is '.*allowed are"):
        Deployment.of(text, 1, 8, (1, 8, 8), 10)
