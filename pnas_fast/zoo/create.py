"""Networks by name, by cell and from a run."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.network.layout import Stem
from pnas_fast.weights import BEST, load_child
from pnas_fast.zoo.download import released_file
from pnas_fast.zoo.errors import ZooError
from pnas_fast.zoo.models import MODELS, Model
from pnas_fast.zoo.released import load_released

CIFAR = (3, 32, 32)


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows, sorted; ``pattern`` as in a shell, such as ``pnasnet5_*``."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def create_model(
    name: str | None = None,
    *,
    cell: str | None = None,
    repeats: int | None = None,
    filters: int | None = None,
    stem: Stem = "cifar",
    classes: int | None = None,
    image_shape: Sequence[int] | None = None,
    weights: Path | str | None = None,
    pretrained: bool = False,
    drop_path: float | None = None,
    auxiliary: bool = False,
    backend: str = "eager",
) -> CellNetwork:
    """A published network by name, or the network of any cell.

    Args:
        name: of `list_models`; or None, and these three are given:
        cell: text of a cell, such as a search prints, with any operation and concatenation (`Wiring.parse`).
        repeats: N.
        filters: F.
        stem: for a cell: ``cifar``, ``imagenet`` with its two stem cells, or ``strided``.
        classes: outputs; None is what was published, and 10 for a cell.
        image_shape: (C, H, W); None is what was published, and (3, 32, 32) for a cell.
        weights: a file of released weights of PNASNet-5: the ``.pth`` of its author or of Cadene, timm's file
            (``.safetensors`` too), or the prefix or ``.index`` file of a TensorFlow checkpoint.
        pretrained: the released file of that name, fetched if need be.
        drop_path: largest probability of dropping an operation's result while training; None is that of the
            published recipe, and 0 for a cell.
        auxiliary: whether there is an auxiliary classifier, which released PyTorch files have no weights for.
        backend: a name in `pnas_fast.kernels.BACKENDS`.

    Returns:
        The network, in training mode as every new module; random weights unless some were asked for.

    Raises:
        ZooError: an unknown name, arguments that do not go together, or weights that are refused.
        CellError: text that is no cell.
        ValueError: a size below 1, or a backend that does not exist.
    """
    if name is not None:
        if cell is not None or repeats is not None or filters is not None or stem != "cifar":
            raise ZooError(f"model {name!r} has its own cell, repeats, filters and stem: none may be given")
        model = _model(name)
        genotype, layout = model.genotype, model.layout
        shape: Sequence[int] = (3, model.image_size, model.image_size)
        outputs, drop = model.classes, model.drop_path
    else:
        genotype, layout = _of_cell(cell, repeats, filters, stem)
        shape, outputs, drop = CIFAR, 10, 0.0
    network = CellNetwork(
        genotype,
        layout,
        outputs if classes is None else classes,
        shape if image_shape is None else image_shape,
        backend=backend,
        drop_path=drop if drop_path is None else drop_path,
        auxiliary=auxiliary,
    )
    if pretrained and weights is not None:
        raise ZooError("pretrained and weights are both given, allowed is one of them")
    if pretrained:
        weights = released_file(name)
    if weights is not None:
        load_released(network, weights)
    return network


def from_run(run: Path | str, *, backend: str = "eager") -> CellNetwork:
    """The best child of a search's run folder, with its trained weights.

    Its cell is ``network.genotype.normal``, of which `create_model` makes larger networks.

    Raises:
        ZooError: no such folder, or no child has been trained in it yet.
        WeightsError: a weights file that cannot be read.
    """
    path = Path(run) / BEST
    if not path.is_file():
        raise ZooError(f"{run}: holds no {BEST}, expected the folder of a run in which a child was trained")
    return load_child(path, backend)


def _model(name: str) -> Model:
    if name not in MODELS:
        raise ZooError(f"model {name!r}: allowed are {' '.join(list_models())}")
    return MODELS[name]


def _of_cell(
    cell: str | None, repeats: int | None, filters: int | None, stem: Stem
) -> tuple[Genotype, Layout]:
    if cell is None or repeats is None or filters is None:
        raise ZooError(
            "neither a model's name nor cell, repeats and filters together: allowed is one or the other"
        )
    return Genotype.parse(cell), Layout(repeats=repeats, filters=filters, stem=stem)
