"""Networks by name, by cell and from a run."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pnas_fast.network import CellNetwork, Genotype, Layout
from pnas_fast.runs.folder import TRIALS
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.weights import BEST, load_child
from pnas_fast.zoo.download import released_file
from pnas_fast.zoo.errors import ZooError
from pnas_fast.zoo.models import MODELS, imagenet_layout
from pnas_fast.zoo.released import load_released

CellStem = Literal["cifar", "imagenet"]


class _Plan(NamedTuple):
    """What a network is before anything of it is changed."""

    genotype: Genotype
    layout: Layout
    image_size: int
    classes: int
    drop_path: float


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows, sorted; ``pattern`` as in a shell, such as ``pnasnet5_*``."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def create_model(
    name: str | None = None,
    *,
    cell: str | None = None,
    repeats: int | None = None,
    filters: int | None = None,
    stem: CellStem = "cifar",
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
        stem: for a cell, ``cifar`` or ``imagenet``: what surrounds it is as in PNASNet-5 CIFAR or mobile.
        classes: outputs; None is what was published, for a cell 10 or 1,000. Where it is given, and released
            weights have another number, the classifier stays random and all else is read, as in timm.
        image_shape: (C, H, W); None is what was published, for a cell (3, 32, 32) or (3, 224, 224).
        weights: a file of released weights of PNASNet-5: the ``.pth`` of its author or of Cadene, timm's file
            (``.safetensors`` too), or the prefix or ``.index`` file of a TensorFlow checkpoint.
        pretrained: the released file of that name, fetched if need be.
        drop_path: largest probability of dropping an operation's result while training; None is that of the
            published recipe, and 0 for a cell.
        auxiliary: whether there is an auxiliary classifier, for which released files have no weights.
        backend: a name in `pnas_fast.kernels.BACKENDS`.

    Returns:
        The network, in training mode as every new module; random weights unless some were asked for.

    Raises:
        ZooError: an unknown name, arguments that do not go together, or weights that are refused.
        CellError: text that is no cell.
        ValueError: a size below 1, or a backend that does not exist.
    """
    if name is None:
        plan = _of_cell(cell, repeats, filters, stem)
    elif (cell, repeats, filters, stem) == (None, None, None, "cifar"):
        plan = _of_name(name)
    else:
        raise ZooError(f"model {name!r} has its own cell, repeats, filters and stem: none may be given")
    if pretrained:  # fetched before time is spent on a network
        if weights is not None:
            raise ZooError("pretrained and weights are both given, allowed is one of them")
        weights = released_file(name)
    network = CellNetwork(
        plan.genotype,
        plan.layout,
        plan.classes if classes is None else classes,
        (3, plan.image_size, plan.image_size) if image_shape is None else image_shape,
        backend=backend,
        drop_path=plan.drop_path if drop_path is None else drop_path,
        auxiliary=auxiliary,
    )
    if weights is not None:
        load_released(network, weights, other_classes=classes not in (None, plan.classes))
    return network


def from_run(run: Path | str, *, backend: str = "eager") -> CellNetwork:
    """The best child of a search's run folder, with its trained weights.

    Its cell is ``network.genotype.normal``, of which `create_model` makes larger networks.

    Args:
        run: the folder.
        backend: a name in `pnas_fast.kernels.BACKENDS`.

    Raises:
        ZooError: no such folder, or no child has been trained in it yet.
        WeightsError: a weights file that cannot be read, or another than the search wrote.
        RunError, ConfigError, StoreError: what a search left beside it is damaged.
    """
    path = Path(run) / BEST
    if not path.is_file():
        raise ZooError(f"{run}: holds no {BEST}, expected the folder of a run in which a child was trained")
    known = RunRecord.load(run).weights_digest if (Path(run) / TRIALS).is_file() else None
    return load_child(path, backend, known)


def _of_name(name: str) -> _Plan:
    if name not in MODELS:
        raise ZooError(f"model {name!r}: allowed are {' '.join(list_models())}")
    model = MODELS[name]
    return _Plan(model.genotype, model.layout, model.image_size, model.classes, model.drop_path)


def _of_cell(cell: str | None, repeats: int | None, filters: int | None, stem: str) -> _Plan:
    if cell is None or repeats is None or filters is None:
        raise ZooError(
            "neither a model's name nor cell, repeats and filters together: allowed is one or the other"
        )
    genotype = Genotype.parse(cell)
    match stem:
        case "cifar":
            return _Plan(genotype, Layout(repeats=repeats, filters=filters), 32, 10, 0.0)
        case "imagenet":
            return _Plan(genotype, imagenet_layout(repeats, filters), 224, 1000, 0.0)
    raise ZooError(f"stem {stem!r}: allowed are {' '.join(get_args(CellStem))}")
