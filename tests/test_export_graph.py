"""Graphs of networks in ONNX Runtime beside the networks themselves in float64."""

import copy
import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cells import cells_of
from pnas_fast.export.checks import check_structure
from pnas_fast.export.graph import CHANNEL_BLOCK
from pnas_fast.export.image_format import of_model
from pnas_fast.export.model_file import Form, build
from pnas_fast.export.sessions import open_session
from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.network.operations import EXTRA_OPERATIONS
from pnas_fast.space import OPERATIONS
from pnas_fast.zoo import genotypes
from reference_pnasnet import perturb

TOLERANCE = 1e-5


def random_cell(blocks: int, operations: tuple[str, ...], seed: int) -> str:
    """Blocks that between them have operations in turn, so that five have ten."""
    generator = random.Random(seed)
    chosen = list(operations)
    generator.shuffle(chosen)
    sides = [
        f"{generator.randrange(index // 2 + 2)}:{chosen[index % len(chosen)]}" for index in range(2 * blocks)
    ]
    return ",".join(f"{left}+{right}" for left, right in zip(sides[::2], sides[1::2], strict=True))


def network_of(genotype: Genotype, layout: Layout, shape: tuple[int, int, int]) -> CellNetwork:
    network = CellNetwork(genotype, layout, 5, shape).eval()
    perturb(network, seed=random.randrange(2**31))
    return network


def exported(network: CellNetwork, folder: Path) -> Path:
    path = folder / "network.onnx"
    onnx.save(build(network, of_model(None, network.image_shape), Form()), path)
    check_structure(path)
    return path


def assert_same(network: CellNetwork, folder: Path, batches: tuple[int, ...]) -> None:
    session = open_session(exported(network, folder), "cpu", threads=1)
    precise = copy.deepcopy(network).double()
    for batch in batches:
        images = torch.randn(batch, *network.image_shape)
        with torch.inference_mode():
            wanted = precise(images.double()).numpy()
        found = session.run(images.numpy())
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        assert error < TOLERANCE, (str(network.genotype.normal), error)


@pytest.mark.parametrize("blocks", range(1, 6))
def test_random_cells_of_every_operation(blocks: int, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**31)
    torch.manual_seed(seed)
    for repeats, size in ((1, (16, 16)), (2, (13, 13)), (2, (9, 14))):
        for operations in (OPERATIONS, EXTRA_OPERATIONS):
            cell = random_cell(blocks, operations, seed)
            network = network_of(Genotype.parse(cell), Layout(repeats=repeats, filters=6), (3, *size))
            assert_same(network, tmp_path, (1, 3, 8))


@pytest.mark.parametrize("operation", [*OPERATIONS, *EXTRA_OPERATIONS])
@pytest.mark.parametrize("size", [8, 11])
def test_each_operation(operation: str, size: int, tmp_path: Path) -> None:
    cell = f"0:{operation}+1:{operation},2:{operation}+0:identity"
    assert_same(
        network_of(Genotype.parse(cell), Layout(repeats=1, filters=5), (1, size, size)), tmp_path, (2,)
    )


LAYOUTS = {
    "nasnet": (
        genotypes.NASNET_A,
        Layout(repeats=1, filters=12, stem="imagenet", stem_filters=8, extra_reductions=True),
    ),
    "skipping": (
        genotypes.NASNET_A,
        Layout(repeats=2, filters=8, extra_reductions=True, skip_reduction_input=True, norm_epsilon=1e-3),
    ),
    "amoebanet": (genotypes.AMOEBANET_B, Layout(repeats=1, filters=8, extra_reductions=True)),
    "pnasnet": (genotypes.PNASNET5, Layout(repeats=1, filters=20, stem="imagenet", stem_filters=32)),
    "darts": (
        genotypes.DARTS_V2,
        Layout(
            repeats=1,
            filters=8,
            stem="strided",
            extra_reductions=True,
            always_align=True,
            final_rectify=False,
            stem_filters=8,
        ),
    ),
    "enas": (
        genotypes.ENAS,
        Layout(repeats=1, filters=7, extra_reductions=True, previous_projections=2, classifier_bias=False),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("size", [32, 35])
def test_published_cells_and_layouts(name: str, size: int, tmp_path: Path) -> None:
    assert_same(network_of(*LAYOUTS[name], (3, size, size)), tmp_path, (2,))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_graph_has_nothing_that_could_be_left_out(name: str, tmp_path: Path) -> None:
    network = network_of(*LAYOUTS[name], (3, 32, 32))
    nodes = onnx.load(exported(network, tmp_path)).graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["Concat"] == len(network.cells)
    assert set(kinds) <= {
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "MaxPool",
        "Relu",
    }
    rectified = Counter(node.input[0] for node in nodes if node.op_type == "Relu")
    assert max(rectified.values()) == 1
    read = Counter(name for node in nodes for name in node.input)
    assert all(node.output[0] in read or node.op_type == "Gemm" for node in nodes)


def test_channels_come_in_whole_blocks(tmp_path: Path) -> None:
    network = network_of(*LAYOUTS["pnasnet"], (3, 32, 32))
    constants = onnx.load(exported(network, tmp_path)).graph.initializer
    kernels = [constant.dims for constant in constants if len(constant.dims) == 4]
    assert {dims[0] % CHANNEL_BLOCK for dims in kernels} == {0}


def test_a_concatenation_read_rectified_alone_is_rectified_part_by_part(tmp_path: Path) -> None:
    nodes = onnx.load(exported(network_of(*LAYOUTS["pnasnet"], (3, 32, 32)), tmp_path)).graph.node
    concats = {node.output[0] for node in nodes if node.op_type == "Concat"}
    assert not any(node.op_type == "Relu" and node.input[0] in concats for node in nodes)


def test_a_concatenation_also_read_as_it_is_stays(tmp_path: Path) -> None:
    """A cell of two blocks has the channels of the reduction after next, which then reads it unaligned."""
    genotype = Genotype.parse("0:max_pool3x3+1:sep3x3,0:sep3x3+2:avg_pool3x3")
    for filters in (8, 16):  # with channels that fill blocks, and without
        network = network_of(genotype, Layout(repeats=2, filters=filters), (3, 12, 12))
        assert cells_of(network)[2].align_before is None
        assert_same(network, tmp_path, (2,))


def test_a_module_without_a_rule_is_named(tmp_path: Path) -> None:
    network = network_of(*LAYOUTS["pnasnet"], (3, 32, 32))
    network.cells[0].align_previous = nn.Tanh()
    with pytest.raises(TypeError, match=r"cells\.0\.align_previous is a Tanh"):
        exported(network, tmp_path)
