"""Networks beyond children: stems, extra reductions, concatenations, operations of published cells."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cells import cells_of
from oracle import relative_error
from pnas_fast.kernels import get_backend
from pnas_fast.network import CellNetwork, ChildNetwork, Genotype, Layout, Logits, Wiring, multiply_adds_of
from pnas_fast.network.layers import Shape
from pnas_fast.network.operations import build_operation
from pnas_fast.space import Cell, CellError
from pnas_fast.zoo.models import MODELS

PNASNET5 = MODELS["pnasnet5_cifar"].genotype
PLAIN = Genotype.parse("0:sep3x3+1:identity")

VARIED = [
    "pnasnet5_mobile",
    "nasnet_a_large",
    "nasnet_a_cifar",
    "amoebanet_a_mobile",
    "amoebanet_b_cifar",
    "amoebanet_c_mobile",
    "enas_cifar",
    "darts_v1_cifar",
    "darts_v2_imagenet",
]
"""One model of each set of cells, with every stem."""

EVERY = pytest.mark.parametrize("name", VARIED)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def size_of(name: str) -> tuple[int, int]:
    return (80, 95) if has_auxiliary(name) else (16, 15) if MODELS[name].image_size == 32 else (40, 47)


def small(name: str, **arguments: Any) -> CellNetwork:
    """A published network with one cell where it has many, of few filters."""
    model = MODELS[name]
    layout = replace(model.layout, repeats=1, filters=8, stem_filters=model.layout.stem_filters and 6)
    return CellNetwork(model.genotype, layout, 5, (3, *size_of(name)), **arguments)


def has_auxiliary(name: str) -> bool:
    """Whether to try a model with its auxiliary classifier."""
    return name == "pnasnet5_mobile"


@EVERY
def test_multiply_adds_are_those_of_the_convolutions_run(name: str) -> None:
    network = small(name, auxiliary=has_auxiliary(name))
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 3, *size_of(name)))
    assert counter.get_total_flops() == 2 * 2 * network.multiply_adds


@EVERY
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = small(name, auxiliary=has_auxiliary(name))
    out = network(torch.randn(4, 3, *size_of(name)))
    torch.stack(
        [logits.square().sum() for logits in (out if isinstance(out, Logits) else [out])]
    ).sum().backward()  # type: ignore[no-untyped-call]
    # A norm before a norm has no say in the result: its scale's gradient is tiny, but there.
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def on(backend: str, network: CellNetwork) -> CellNetwork:
    """A copy that computes elsewhere."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if hasattr(module, "backend"):
            vars(module)["backend"] = get_backend(backend)
    return twin


def trained_once(network: CellNetwork, images: Tensor, upstream: Tensor) -> list[Tensor]:
    """Logits; every gradient, one after the other; every running statistic."""
    network.dropout.p = 0.0
    dtype = network.classifier.weight.dtype
    logits = network(images.to(dtype))
    logits.backward(upstream.to(dtype))
    gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    statistics = torch.cat([buffer.flatten().to(dtype) for buffer in network.buffers()])
    with torch.no_grad():
        evaluated = network.eval()(images.to(dtype))
    return [logits.detach(), gradients, statistics, evaluated]


@EVERY
def test_the_cpu_backend_computes_what_the_eager_one_does(name: str) -> None:
    network = small(name)
    images, upstream = torch.randn(4, 3, *size_of(name)), torch.randn(4, 5)
    exact = trained_once(on("eager", network).double(), images, upstream)
    found = trained_once(on("cpu", network), images, upstream)
    # Where rounding turns a ReLU on or off gradients jump, eager's too, by up to a hundredth of their norm.
    for got, expected, bound in zip(found, exact, [1e-4, 3e-2, 1e-4, 1e-4], strict=True):
        assert relative_error(got, expected) < bound


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_epsilon_and_momentum_of_a_layout_reach_every_batch_norm(backend: str) -> None:
    layout = Layout(repeats=1, filters=4, norm_epsilon=0.5, norm_momentum=0.25)
    network = CellNetwork(PLAIN, layout, 3, (3, 8, 8), backend=backend)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}
    images = torch.randn(4, 3, 8, 8)
    z = F.conv2d(images, network.get_parameter("stem.weight"), padding=1)
    network(images)
    mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3))
    running_mean, running_var = map(network.get_buffer, ("stem.norm.running_mean", "stem.norm.running_var"))
    torch.testing.assert_close(running_mean, 0.25 * mean)
    torch.testing.assert_close(running_var, 0.75 + 0.25 * variance)
    network.eval()
    state = network.backend.materialise(network.stem(images.contiguous(memory_format=torch.channels_last)))
    scale = (running_var + 0.5).rsqrt().view(-1, 1, 1)
    torch.testing.assert_close(state, (z - running_mean.view(-1, 1, 1)) * scale)


# docs/method.md, 3.2: the stem's output, then every cell's.
SHAPES = {
    "pnasnet5_large": [(96, 165), (270, 83), (540, 42)]
    + [(1080, 42)] * 4
    + [(2160, 21)] * 4
    + [(4320, 11)] * 4,
    "pnasnet5_mobile": [(32, 111), (65, 56), (135, 28)] + [(270, 28)] * 3 + [(540, 14)] * 3 + [(1080, 7)] * 3,
    "pnasnet5_cifar": [(144, 32)] + [(240, 32)] * 3 + [(480, 16)] * 3 + [(960, 8)] * 3,
}


@cache
def counted(name: str, **arguments: Any) -> CellNetwork:
    """A model without memory for its weights."""
    model = MODELS[name]
    size = model.image_size
    with torch.device("meta"):
        return CellNetwork(
            model.genotype,
            model.layout,
            arguments.pop("classes", model.classes),
            (3, size, size),
            **arguments,
        )


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_the_authors(name: str) -> None:
    network = counted(name)
    stem: Any = network.stem
    shapes = [stem.shape, *(cell.shape for cell in cells_of(network))]
    assert [(shape.channels, shape.height) for shape in shapes] == SHAPES[name]
    assert all(shape.height == shape.width for shape in shapes)


@pytest.mark.parametrize(
    ("name", "arguments", "parameters", "multiply_adds"),
    [
        ("pnasnet5_large", {}, 86_057_668, 24_937_395_792),
        ("pnasnet5_large", {"classes": 1001}, 86_061_989, 24_937_400_112),
        ("pnasnet5_large", {"classes": 1001, "auxiliary": True}, 90_648_974, 24_951_661_104),
        ("pnasnet5_mobile", {}, 5_064_487, 587_293_200),
        ("pnasnet5_mobile", {"classes": 1001}, 5_065_568, 587_294_280),
        ("pnasnet5_mobile", {"classes": 1001, "auxiliary": True}, 7_479_113, 590_741_832),
        ("pnasnet5_cifar", {}, 3_189_082, 574_891_392),
        ("pnasnet5_cifar", {"auxiliary": True}, 4_832_868, 577_454_976),
        # What timm and slim have for the same networks.
        ("nasnet_a_large", {}, 88_753_150, None),
        ("nasnet_a_mobile", {}, 5_289_978, None),
    ],
)
def test_sizes_are_exactly_the_known_ones(
    name: str, arguments: dict[str, Any], parameters: int, multiply_adds: int | None
) -> None:
    network = counted(name, **arguments)
    assert network.parameters_count == parameters
    assert multiply_adds in (None, network.multiply_adds)


def test_every_part_of_the_large_network_has_its_known_size() -> None:
    """Parameters and multiply-adds, docs/method.md, 4."""
    network = counted("pnasnet5_large")
    parts = [network.stem, *network.cells]
    sizes = [(sum(p.numel() for p in part.parameters()), multiply_adds_of(part)) for part in parts]
    assert sizes == [
        (2_784, 70_567_200),
        (69_468, 572_826_696),
        (221_616, 587_796_264),
        (795_312, 1_392_261_696),
        (970_272, 1_700_891_136),
        *[(1_086_912, 1_906_644_096)] * 2,
        (3_481_056, 2_763_948_096),
        (3_760_128, 1_652_882_112),
        *[(4_226_688, 1_858_635_072)] * 2,
        (13_680_576, 2_846_606_976),
        (14_798_592, 1_787_702_400),
        *[(16_664_832, 2_013_517_440)] * 2,
    ]
    assert sum(p.numel() for p in network.classifier.parameters()) == 4_321_000


def inputs_of(network: CellNetwork) -> list[list[int]]:
    """For every cell which outputs it reads, the stem's being 0 and the first cell's 1."""
    outputs: list[Tensor] = []
    found: list[list[int]] = []

    def before(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        if not outputs:
            outputs.append(arguments[1])
        found.append([next(i for i, kept in enumerate(outputs) if kept is x) for x in arguments])

    def after(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs.append(output)

    for cell in network.cells:
        cell.register_forward_pre_hook(before)
        cell.register_forward_hook(after)
    network(torch.randn(2, 3, 32, 32))
    return found


@pytest.mark.parametrize(("skip", "before"), [(False, [2, 5]), (True, [1, 4])])
def test_what_the_cell_after_an_extra_reduction_reads(skip: bool, before: list[int]) -> None:
    """Counts are the same either way (docs/method.md, 6.3). The third and sixth cells are the reductions."""
    layout = Layout(repeats=2, filters=4, extra_reductions=True, skip_reduction_input=skip)
    inputs = inputs_of(CellNetwork(PLAIN, layout, 3, (3, 32, 32)))
    second, third = before
    assert inputs == [[0, 0], [0, 1], [1, 2], [second, 3], [3, 4], [4, 5], [third, 6], [6, 7]]


def test_extra_reductions_use_the_reduction_cell_and_double_the_filters() -> None:
    genotype = Genotype.parse("0:identity+1:identity=>2", "0:max_pool3x3+1:max_pool3x3,0:sep3x3+1:sep3x3")
    network = CellNetwork(genotype, Layout(repeats=2, filters=4, extra_reductions=True), 3, (3, 16, 16))
    assert [tuple(cell.shape) for cell in cells_of(network)] == [
        *[(4, 16, 16)] * 2,
        (16, 8, 8),
        *[(8, 8, 8)] * 2,
        (32, 4, 4),
        *[(16, 4, 4)] * 2,
    ]


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_states_leave_a_cell_in_the_order_of_its_outputs(backend: str) -> None:
    genotype = Genotype.parse("0:identity+1:identity,1:identity+1:identity,2:avg_pool3x3+3:identity=>3,1,4,0")
    network = CellNetwork(genotype, Layout(repeats=1, filters=4), 3, (3, 8, 8), backend=backend).eval()
    cell = cells_of(network)[0]
    x = network.stem(torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    tensor = network.backend.materialise
    previous = tensor(cell.align_previous(x))
    first = tensor(cell.blocks[0].left.project(x)) + previous
    second = previous + previous
    pooled = F.avg_pool2d(first, 3, 1, 1, count_include_pad=False)
    own = tensor(cell.align_outputs["0"](x))
    torch.testing.assert_close(tensor(cell(x, x)), torch.cat([second, previous, pooled + second, own], 1))


def test_a_cell_input_that_leaves_a_reduction_cell_is_halved_without_a_relu() -> None:
    genotype = Genotype.parse("0:identity+1:identity=>2", "0:max_pool3x3+1:max_pool3x3=>0,1,2")
    network = CellNetwork(genotype, Layout(repeats=1, filters=4, extra_reductions=True), 3, (3, 8, 8))
    aligned = cells_of(network)[1].align_outputs
    assert sorted(aligned) == ["0", "1"]
    assert all(not module.rectify for module in aligned.values())
    assert all(type(module).__name__ == "FactorizedReduction" for module in aligned.values())


def test_a_layout_may_align_every_input_and_project_the_previous_cell_twice() -> None:
    layout = Layout(repeats=2, filters=8, always_align=True, previous_projections=2)
    network = CellNetwork(PLAIN, layout, 3, (3, 8, 8))
    assert all(cell.align_before is not None and len(cell.align_previous) == 2 for cell in cells_of(network))


@pytest.mark.parametrize("size", [4, 5, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_2x2_maximum_is_padded_after_the_edge(size: int, stride: int) -> None:
    operation = build_operation("max_pool2x2", get_backend("eager"), Shape(3, size, size), 3, stride)
    x = torch.randn(2, 3, size, size) - 5  # so that a zero would win
    padded = torch.full((2, 3, size + 1, size + 1), float("-inf"))
    padded[:, :, :size, :size] = x
    rows = [
        [padded[:, :, y : y + 2, z : z + 2].amax((2, 3)) for z in range(0, size, stride)]
        for y in range(0, size, stride)
    ]
    expected = torch.stack([torch.stack(row, -1) for row in rows], -2)
    torch.testing.assert_close(operation(x).state, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "stride", "parameters"),
    [
        ("conv1x1", 1, 6 * 8 + 16),
        ("conv3x3_bottleneck", 2, (6 * 2 + 4) + (9 * 2 * 2 + 4) + (2 * 8 + 16)),
        ("conv1x7_7x1_bottleneck", 2, (6 * 2 + 4) + 2 * (7 * 2 * 2 + 4) + (2 * 8 + 16)),
        ("max_pool2x2", 2, 6 * 8 + 16),
        ("skip", 2, 6 * 8 + 16),
        ("skip_linear", 1, 6 * 8 + 16),
    ],
)
def test_operations_of_published_cells(name: str, stride: int, parameters: int) -> None:
    operation = build_operation(name, get_backend("eager"), Shape(6, 9, 8), 8, stride)
    assert sum(parameter.numel() for parameter in operation.parameters()) == parameters
    assert operation(torch.randn(2, 6, 9, 8)).state.shape == (2, 8, -(-9 // stride), 8 // stride)


@pytest.mark.parametrize(("name", "rectify"), [("skip", True), ("skip_linear", False)])
def test_a_strided_skip_is_a_factorized_reduction(name: str, rectify: bool) -> None:
    operation = build_operation(name, get_backend("eager"), Shape(6, 8, 8), 6, 2).eval()
    x = torch.randn(2, 6, 8, 8)
    source = x.relu() if rectify else x
    paths = zip(
        (operation.get_parameter("project.even"), operation.get_parameter("project.odd")),
        (source[:, :, ::2, ::2], source[:, :, 1::2, 1::2]),
        strict=True,
    )
    halves = torch.cat([F.conv2d(part, weight) for weight, part in paths], 1)
    torch.testing.assert_close(operation(x).state, halves / (1 + 1e-5) ** 0.5)
    assert operation(x).state.shape == (2, 6, 4, 4)
    assert build_operation(name, get_backend("eager"), Shape(6, 8, 8), 6, 1)(x).state is x


@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_the_head_of_a_layout(rectify: bool, backend: str) -> None:
    layout = Layout(repeats=1, filters=4, final_rectify=rectify, classifier_bias=False)
    network = CellNetwork(PLAIN, layout, 3, (3, 8, 8), backend=backend).eval()
    outputs: list[Tensor] = []
    network.cells[-1].register_forward_hook(
        lambda _, __, out: outputs.append(network.backend.materialise(out))
    )
    logits = network(torch.randn(2, 3, 8, 8))
    last = outputs[0].relu() if rectify else outputs[0]
    assert dict(network.classifier.named_parameters()).keys() == {"weight"}
    torch.testing.assert_close(logits, last.mean((2, 3)) @ network.classifier.weight.T)


def test_a_bottleneck_too_narrow_for_one_is_left_out() -> None:
    operation = build_operation("conv3x3_bottleneck", get_backend("eager"), Shape(3, 8, 8), 3, 1)
    assert sum(parameter.numel() for parameter in operation.parameters()) == 9 * 3 * 3 + 6


def test_stem_cells_count_for_drop_path() -> None:
    network = small("pnasnet5_mobile", drop_path=0.5)
    network.set_progress(1.0)
    places = [cell.drop.places for cell in cells_of(network)]
    for index, count in enumerate(places):
        expected = torch.full((count,), 1 - 0.5 * (index + 1) / 5)
        first = sum(places[:index])
        torch.testing.assert_close(network.drop.keep()[first : first + count, 0], expected)
    assert len(network.drop.keep()) == sum(places)


def test_dropout_is_there_while_training_only() -> None:
    network = small("pnasnet5_mobile")
    assert network.dropout.p == 0.5
    network.eval()
    images = torch.randn(2, 3, 80, 95)
    torch.testing.assert_close(network(images), network(images), rtol=0, atol=0)
    network.train()
    assert not torch.allclose(network(images), network(images))


def child_with_auxiliary(size: int = 20, **arguments: Any) -> ChildNetwork:
    cell = Cell.parse("0:sep3x3+1:identity")
    return ChildNetwork(cell, 2, 4, 7, (3, size, size), auxiliary=True, **arguments)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_the_auxiliary_classifier_reads_the_last_cell_before_the_second_reduction(backend: str) -> None:
    network = child_with_auxiliary(backend=backend)
    images = torch.randn(3, 3, 20, 20)
    seen: list[Tensor] = []
    network.cells[3].register_forward_hook(
        lambda _, __, output: seen.append(network.backend.materialise(output))
    )
    logits = network(images)
    assert isinstance(logits, Logits)
    assert logits.main.shape == logits.auxiliary.shape == (3, 7)
    head = network.auxiliary
    assert head is not None
    pooled = F.avg_pool2d(seen[0].relu(), 5, 3)  # 10×10 to 2×2
    projected = F.batch_norm(F.conv2d(pooled, head.project), None, None, training=True).relu()
    features = F.batch_norm(F.conv2d(projected, head.reduce), None, None, training=True).relu()
    torch.testing.assert_close(logits.auxiliary, head.classifier(features[:, :, 0, 0]), rtol=1e-3, atol=1e-4)
    network.eval()
    assert network(images).shape == (3, 7)


def test_the_auxiliary_classifier_changes_nothing_else() -> None:
    torch.manual_seed(3)
    network = child_with_auxiliary()
    torch.manual_seed(3)
    without = ChildNetwork(Cell.parse("0:sep3x3+1:identity"), 2, 4, 7, (3, 20, 20))
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in without.state_dict().items())
    images = torch.randn(3, 3, 20, 20)
    torch.testing.assert_close(network(images).main, without(images), rtol=0, atol=0)


def test_a_map_too_small_for_the_auxiliary_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="would read a map of 4×4, allowed is 5×5 or more"):
        child_with_auxiliary(size=8)


def test_an_image_too_small_for_an_unpadded_stem_is_refused() -> None:
    layout = Layout(repeats=1, filters=4, stem="imagenet")
    with pytest.raises(ValueError, match=r"image_shape is \(3, 2, 9\), allowed is a height and width of 3"):
        CellNetwork(PLAIN, layout, 3, (3, 2, 9))


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_texts_of_wirings_can_be_read_again(model: Any) -> None:
    for wiring in (model.genotype.normal, model.genotype.reduction):
        assert Wiring.parse(str(wiring)) == wiring


def test_a_searched_cell_is_a_wiring_of_the_same_text() -> None:
    cell = Cell.parse("0:sep5x5+0:max_pool3x3,2:sep7x7+1:identity")
    assert str(Genotype.of(cell).normal) == str(cell)
    assert Genotype.parse(str(cell)) == Genotype.of(cell)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:sep9x9+1:identity", "unknown operation 'sep9x9', allowed are sep3x3 .* skip_linear"),
        ("0:sep3x3+2:identity", "input 2 does not exist there, allowed are 0 to 1"),
        ("0:sep3x3+1:identity=>3", r"outputs \(3,\): allowed are states 0 to 2"),
        ("0:sep3x3+1:identity=>2,2", "no output twice"),
        ("0:sep3x3+1:identity=>", "outputs '', allowed are states joined by commas"),
        ("0:sep3x3+1:identity=>2;1", "outputs '2;1', allowed are states"),
        ("0:sep3x3", "block 0: '0:sep3x3' is not of the form"),
    ],
)
def test_texts_that_are_no_wiring_are_refused(text: str, message: str) -> None:
    with pytest.raises(CellError, match=message):
        Wiring.parse(text)
