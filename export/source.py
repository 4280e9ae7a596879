"""A network written out as one Python file of plain PyTorch modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.literals import listed, string
from pnas_fast.export.source_docstring import docstring_of
from pnas_fast.export.source_layers import Channels, Layer, layers_of
from pnas_fast.export.source_parts import IMPORTS, LAYERS, LOAD, PADDED, PREPARE
from pnas_fast.network import CellNetwork
from pnas_fast.network.cell import BlockModule, CellModule
from pnas_fast.network.genotype import Wiring
from pnas_fast.network.layers import Convolution
from pnas_fast.network.layout import Place
from pnas_fast.network.stem import StridedStem, ValidConvolution
from pnas_fast.space import CELL_INPUTS

_CELL = '''\
    """A cell of stride {stride}."""

    def __init__(self, before: int, previous: int, filters: int) -> None:
        super().__init__()
{fields}
    def forward(self, before: Tensor, previous: Tensor) -> Tensor:
        """This cell's output, of those of the last cell but one and of the last."""
{steps}'''

_NETWORK = '''\
class Network(nn.Module):
    """Stem, cells, average over the map, classifier."""

    def __init__(self) -> None:
        super().__init__()
{stem}\
        self.cells = nn.ModuleList(
            [
{cells}\
            ]
        )
        self.classifier = nn.Linear({classifier})

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of {takes}."""
{normalise}{steps}{rectify}\
        logits: Tensor = self.classifier(previous.mean(dim=(2, 3)))
        return logits
'''

_EVERY_CELL = """\
        for cell in self.cells:
            before, previous = previous, cell(before, previous)
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A network as source.

    Attributes:
        text: of the Python file.
        tensors: the weights by their names there.
    """

    text: str
    tensors: dict[str, Tensor]


def write_source(
    network: CellNetwork,
    images: ImageFormat,
    *,
    raw: bool,
    title: str,
    class_names: Sequence[str] | None,
) -> Source:
    """The source of a network, with the names that its tensors have there.

    Batch norms stay layers of their own, so that the text says what the cell is and can be trained further.
    Cells that differ in nothing but their numbers of channels share a class. The auxiliary classifier,
    dropout and drop-path belong to training and are left out, as is a block that nothing reads.

    Args:
        network: any.
        images: what it takes.
        raw: whether it takes pixels as decoded and normalises them itself.
        title: its name, for people.
        class_names: of its outputs, in order; None where nobody knows.
    """
    writer = _Writer()
    body = writer.network(network, raw)
    norm = f"eps={network.layout.norm_epsilon!r}, momentum={network.layout.norm_momentum!r}"
    constants = 'WEIGHTS = Path(__file__).with_suffix(".safetensors")\n'
    for name, levels in (("MEAN", images.mean), ("STD", images.std)):
        constants += listed(f"{name} = [", [repr(level) for level in levels], "]")
    if class_names:
        constants += listed("CLASSES = [", [string(name) for name in class_names], "]")
    parts = [
        PREPARE,
        *([PADDED] if writer.used & {"Convolution", "SeparableHalf"} else []),
        "def batch_norm(channels: int) -> nn.BatchNorm2d:\n"
        f'    """As in every layer."""\n    return nn.BatchNorm2d(channels, {norm})\n',
        *(text for name, text in LAYERS.items() if name in writer.used),
        *(f"class {name}(nn.Module):\n{text}" for text, name in writer.cells.items()),
        body,
        LOAD,
    ]
    head = f"{docstring_of(network, images, raw=raw, title=title)}\n{IMPORTS}\n{constants}"
    return Source("\n\n".join([head, *parts]), writer.tensors)


class _Writer:
    """What has been written of a network so far: its parts in use, its cells' texts, its tensors."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.cells: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}

    def network(self, network: CellNetwork, raw: bool) -> str:
        """The class of the whole."""
        stem, steps, shapes = self._stem(network.stem)
        cells = []
        for index, (cell, place) in enumerate(zip(network.cells, network.places, strict=True)):
            assert isinstance(cell, CellModule)
            wiring = network.genotype.reduction if place.reduction else network.genotype.normal
            before, previous = shapes[-place.back :][0], shapes[-1]
            name = self._cell(cell, wiring, place, f"cells.{index}")
            cells.append(f"                {name}({before}, {previous}, {place.filters}),\n")
            shapes.append(cell.shape.channels)
        classifier = network.classifier
        self._keep(classifier, "classifier")
        bias = "" if classifier.bias is not None else ", bias=False"
        return _NETWORK.format(
            stem=stem,
            cells="".join(cells),
            classifier=f"{classifier.in_features}, {classifier.out_features}{bias}",
            takes="pixels (batch, H, W, C), 0 to 255" if raw else "normalised images (batch, C, H, W)",
            normalise="        images = normalised(images)\n" if raw else "",
            steps=steps + _through_cells([place.back for place in network.places]),
            rectify="        previous = F.relu(previous)\n" if network.layout.final_rectify else "",
        )

    def _stem(self, stem: nn.Module) -> tuple[str, str, list[int]]:
        """Its fields, its steps, and the channels of its results."""
        if isinstance(stem, StridedStem):
            parts = {"first": stem.first, "second": stem.second, "third": stem.third}
            fields = "".join(
                self._field(f"{name}_stem", _stem_layers(part), "") for name, part in parts.items()
            )
            steps = (
                "        before = self.second_stem(self.first_stem(images))\n"
                "        previous = self.third_stem(before)\n"
            )
            return fields, steps, [stem.second.shape.channels, stem.third.shape.channels]
        assert isinstance(stem, Convolution | ValidConvolution)
        fields = self._field("stem", _stem_layers(stem), "")
        return fields, "        before = previous = self.stem(images)\n", [stem.shape.channels]

    def _cell(self, cell: CellModule, wiring: Wiring, place: Place, path: str) -> str:
        """The name of a cell's class, which is new unless another cell has the same text."""
        live, filters = _live(wiring), place.filters
        names = ["before" if cell.align_before is None else "filters", "filters"]
        fields, steps = "", ""
        aligns = ((cell.align_before, "before"), (cell.align_previous, "previous"))
        for state, (align, read) in enumerate(aligns):
            if state in live and align is None:
                steps += f"        x{state} = {read}\n"
            elif state in live and align is not None:
                fields += self._field(f"align{state}", layers_of(align, Channels(read, filters)), path)
                steps += f"        x{state} = self.align{state}({read})\n"
        for index, (module, block) in enumerate(zip(cell.blocks, wiring.blocks, strict=True), CELL_INPUTS):
            if index not in live:
                continue
            assert isinstance(module, BlockModule)
            told = " + ".join(f"{operation}(x{source})" for source, operation in block.sides)
            fields += f"        # x{index} = {told}\n"
            terms = []
            for side, part, (source, _) in zip(
                ("left", "right"), (module.left, module.right), block.sides, strict=True
            ):
                given = names[source] if source < CELL_INPUTS else "filters"
                layers = layers_of(part, Channels(given, filters))
                fields += self._field(f"{side}{index}", layers, path) if layers else ""
                terms.append(f"self.{side}{index}(x{source})" if layers else f"x{source}")
            steps += f"        x{index} = {' + '.join(terms)}\n"
        results = []
        for state in cell.outputs:
            result = f"x{state}"
            if state < CELL_INPUTS and str(state) in cell.align_outputs:
                layers = layers_of(cell.align_outputs[str(state)], Channels(names[state], filters))
                fields += self._field(f"output{state}", layers, path)
                result = f"self.output{state}({result})"
            results.append(result)
        steps += listed("outputs = [", results, "]", 2) + "        return torch.cat(outputs, dim=1)\n"
        text = _CELL.format(stride=2 if place.reduction else 1, fields=fields, steps=steps)
        return self.cells.setdefault(text, f"Cell{len(self.cells) + 1}")

    def _field(self, name: str, layers: Sequence[Layer], path: str) -> str:
        """The lines that give a module to an attribute; its tensors are kept by their names."""
        inside = f"{path}.{name}" if path else name
        self.used |= {layer.name for layer in layers}
        if len(layers) == 1:
            (layer,) = layers
            self._keep(layer.module, inside)
            return listed(f"self.{name} = {layer.name}(", layer.arguments, ")", 2)
        lines = ""
        for index, layer in enumerate(layers):
            self._keep(layer.module, f"{inside}.{index}")
            lines += listed(f"{layer.name}(", layer.arguments, "),", 3)
        return f"        self.{name} = nn.Sequential(\n{lines}        )\n"

    def _keep(self, module: nn.Module | None, name: str) -> None:
        if module is not None:
            for key, tensor in module.state_dict().items():
                self.tensors[f"{name}.{key}"] = tensor.detach().cpu().contiguous()


def _stem_layers(layer: Convolution | ValidConvolution) -> list[Layer]:
    outputs, inputs = layer.weight.shape[:2]
    (found,) = layers_of(layer, Channels(str(inputs), filters=0))
    return [Layer(found.name, [str(inputs), str(outputs), *found.arguments[2:]], layer)]


def _live(wiring: Wiring) -> set[int]:
    """The states that a cell's output depends on."""
    live = set(wiring.outputs)
    for index in reversed(range(len(wiring.blocks))):
        if CELL_INPUTS + index in live:
            live |= {wiring.blocks[index].in1, wiring.blocks[index].in2}
    return live


def _through_cells(backs: Sequence[int]) -> str:
    """From ``before`` and ``previous`` to the last cell's output, ``previous``."""
    if set(backs) == {2}:
        return _EVERY_CELL
    return (
        "        # A cell reads the previous output and the one so many outputs back.\n"
        + listed("backs = [", [str(back) for back in backs], "]", 2)
        + "        states: list[Tensor] = [before, before, previous]\n"
        "        for cell, back in zip(self.cells, backs, strict=True):\n"
        "            states = [*states[-2:], cell(states[-back], states[-1])]\n"
        "        previous = states[-1]\n"
    )
