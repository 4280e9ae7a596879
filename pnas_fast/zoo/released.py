"""Reading released weights into a network: its layout, whether it fits, its tensors (docs/method.md, 5)."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from pnas_fast.foreign import reading, reason
from pnas_fast.network import CellNetwork
from pnas_fast.zoo.errors import ZooError
from pnas_fast.zoo.names import LAYOUTS, NameMap, roles
from pnas_fast.zoo.tensor_bundle import INDEX_SUFFIX, TensorBundle

IMAGENET_CLASSES = 1000
"""Files of one class more have the background for their first."""

CLASSIFIERS = ("classifier.", "auxiliary.classifier.")
"""How roles of tensors begin that have an output for each class."""

COUNTER = "num_batches_tracked"
"""The one tensor that a file may lack: layouts older than it are read as if it were 0."""

LISTED = 12
"""Names in a message; a wrong file may differ in a thousand."""


class Wanted(NamedTuple):
    """A tensor of a network as a file would hold it: its name and axes there, and its shape here.

    ``other_shape`` is that of a classifier with one class more, the background; None where none is allowed.
    ``optional``: where the file has another number of outputs, what the network has stays.
    """

    name: str
    axes: tuple[int, ...] | None
    shape: tuple[int, ...]
    other_shape: tuple[int, ...] | None
    optional: bool

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of that shape, its axes in our order, is read."""
        return shape in (self.shape, self.other_shape)


@dataclass(frozen=True, slots=True)
class Contents:
    """A file's tensors: names and shapes at hand, numbers when they are asked for."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


def load_released(network: CellNetwork, path: Path | str, *, other_classes: bool = False) -> None:
    """Put a file's weights into a network; where anything is wrong, into none of it.

    The layout is known by the names in the file. All tensors must be there, none more, each of its shape. A
    file of 1,001 classes fits a network of 1,000 too: its first class, the background, is left out.

    Args:
        network: of the same cells, layout and number of classes.
        path: ``.safetensors``, a PyTorch file, or a TensorFlow checkpoint: its prefix or one of its files.
        other_classes: whether a file of another number of classes is read too, but for its classifiers.

    Raises:
        ZooError: a file that is missing, cut off, of no known layout, would execute code, or does not fit;
            the message lists the tensors that are missing, too many or of another shape.
    """
    path = Path(path).expanduser()
    contents = _open(path)
    layout = _layout(path, contents)
    own = network.state_dict()
    wanted = {name: _wanted(layout, role, own[name], other_classes) for name, role in roles(network).items()}
    _check(path, layout, list(wanted.values()), contents)
    state = {
        name: _in_our_order(contents.read(item.name), item)
        for name, item in wanted.items()
        if item.name in contents.shapes and item.fits(_ordered(contents.shapes[item.name], item))
    }
    kinds = [
        f"{wanted[name].name} is {tensor.dtype}"
        for name, tensor in state.items()
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.layout != torch.strided
    ]
    if kinds:
        raise ZooError(f"{path}: {layout.title} file holds other numbers than floats; {_listed(kinds)}")
    network.load_state_dict(own | state)


def _open(path: Path) -> Contents:
    name = re.sub(rf"({re.escape(INDEX_SUFFIX)}|\.data-\d{{5}}-of-\d{{5}})$", "", path.name)
    index = path.with_name(name + INDEX_SUFFIX)
    if index.is_file():
        bundle = TensorBundle(path.with_name(name))
        shapes = {name: entry.shape for name, entry in bundle.entries.items()}
        return Contents(shapes, lambda name: torch.from_numpy(bundle.read(name)))
    if not path.is_file() or name != path.name:
        raise ZooError(f"{path}: no such file, nor {index.name} beside it")
    state = _safetensors(path) if path.suffix == ".safetensors" else _pytorch(path)
    return Contents({name: tuple(tensor.shape) for name, tensor in state.items()}, state.__getitem__)


def _safetensors(path: Path) -> dict[str, Tensor]:
    with reading(path, ZooError, "not a whole safetensors file"):
        return load_file(path)


def _pytorch(path: Path) -> dict[str, Tensor]:
    """A state dict; a pickle is read by PyTorch's reader that knows tensors and runs nothing."""
    with reading(path, ZooError, "not a whole PyTorch file"):
        try:
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Of what PyTorch says the first sentence; the others tell how to run the code in the file.
            told = reason(error).split(". ", 1)[0]
            raise ZooError(f"{path}: refused, it is no file of plain tensors ({told})") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ZooError(f"{path}: holds {type(state).__name__}, allowed is a dictionary of tensors by name")
    return state


def _layout(path: Path, contents: Contents) -> NameMap:
    for layout in LAYOUTS:
        if layout.marker in contents.shapes:
            return layout
    raise ZooError(
        f"{path}: none of its {len(contents.shapes)} tensors is called "
        + " or ".join(layout.marker for layout in LAYOUTS)
        + ": no weights of PNASNet-5 in a layout that is known"
    )


def _wanted(layout: NameMap, role: str, tensor: Tensor, other_classes: bool) -> Wanted:
    shape = tuple(tensor.shape)
    optional = other_classes and role.startswith(CLASSIFIERS)
    imagenet = role.startswith("classifier.") and shape[0] == IMAGENET_CLASSES
    other = (IMAGENET_CLASSES + 1, *shape[1:]) if imagenet else None
    return Wanted(layout.name(role), layout.order(role), shape, other, optional)


def _check(path: Path, layout: NameMap, wanted: list[Wanted], contents: Contents) -> None:
    names = {item.name for item in wanted}
    missing = {name for name in names if name not in contents.shapes and not name.endswith(COUNTER)}
    extra = {name for name in contents.shapes if name not in names and not re.search(layout.ignored, name)}
    shapes = [
        f"{item.name} is {found} for {item.shape}"
        for item in wanted
        if item.name in contents.shapes
        and not item.fits(found := _ordered(contents.shapes[item.name], item))
        and not (item.optional and found[1:] == item.shape[1:])
    ]
    faults = {"missing": missing, "not in the network": extra, "of another shape": shapes}
    if any(faults.values()):
        told = "; ".join(f"{what}: {_listed(found)}" for what, found in faults.items() if found)
        raise ZooError(f"{path}: {layout.title} file does not fit this network; {told}")


def _listed(names: Collection[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(sorted(names)[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _ordered(shape: tuple[int, ...], item: Wanted) -> tuple[int, ...]:
    if item.axes is None or len(item.axes) != len(shape):
        return shape
    return tuple(shape[axis] for axis in item.axes)


def _in_our_order(tensor: Tensor, item: Wanted) -> Tensor:
    tensor = tensor if item.axes is None else tensor.permute(item.axes)
    return tensor if tuple(tensor.shape) == item.shape else tensor[1:]
