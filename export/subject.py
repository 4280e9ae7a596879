"""What is exported: a network with all that its file says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataSet, load
from pnas_fast.engine import load_training_data
from pnas_fast.export.errors import ExportError
from pnas_fast.export.image_format import ImageFormat, of_data, of_model
from pnas_fast.export.model_file import Precision, check_size
from pnas_fast.foreign import reading
from pnas_fast.network import CellNetwork
from pnas_fast.runs.config import saved_settings, trained_on_all
from pnas_fast.runs.folder import CONFIG, RunError
from pnas_fast.runs.front import pick
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.weights import BEST, load_child
from pnas_fast.space import CellError
from pnas_fast.zoo import ZooError, create_model, from_run
from pnas_fast.zoo.released import load_released

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

CLASS_NAMES = {"digits": [str(digit) for digit in range(10)], "cifar10": _CIFAR10.split()}
"""Names of a data set's classes, in order."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to export.

    Attributes:
        network: with the weights that the file gets.
        title: its name, for people.
        images: what it takes.
        class_names: of its outputs, in order; None where nobody knows.
        data: what it was trained on, to check, calibrate and measure it with; None where there is none.
        judged: whether its validation images were kept from training, so that accuracy on them says anything.
    """

    network: CellNetwork
    title: str
    images: ImageFormat
    class_names: list[str] | None = None
    data: DataSet | None = None
    judged: bool = True


def run_subject(run: Path, data: str | None = None, limits: Sequence[str] = ()) -> Subject:
    """The best child of a search, or the network of a long training.

    Args:
        run: the run's folder.
        data: the data set, where it is elsewhere than the run's configuration says.
        limits: of a search, whose best child that keeps them is taken (`pnas_fast.runs.front.pick`).

    Raises:
        ZooError, WeightsError, ConfigError, DataError: the folder or the data set is not whole, or a text is
            no limit.
        RunError: no child keeps the limits, or its weights are not there.
        ExportError: the data set has other images or classes than the network.
    """
    network, title = _picked(run, limits) if limits else (from_run(run), f"best of {run.name}")
    with reading(run / CONFIG, ConfigError, "not the configuration of a run"):
        settings, on_all = saved_settings(run / CONFIG), trained_on_all(run / CONFIG)
    if data:
        same_kind = data.partition(":")[0] == settings.data.partition(":")[0]
        size = settings.image_size if same_kind else 0
        settings = replace(settings, data=data, train_images=0, image_size=size)
    if not on_all:
        return _with_data(network, title, load_training_data(settings))
    whole = load_training_data(replace(settings, train_images=0))
    return replace(_with_data(network, title, whole.joined(0)), judged=False)


def _picked(run: Path, limits: Sequence[str]) -> tuple[CellNetwork, str]:
    """The network of the best child that keeps limits, and its name."""
    record = RunRecord.load(run)
    try:
        trial, path = pick(record, limits)
    except RunError:
        raise
    except ValueError as error:
        raise ConfigError(f"pick: {error}") from error
    network = load_child(path, expected=record.weights_digest if path.name == BEST else None)
    return network, f"trial {trial.number} of {run.name}, {trial.cell}"


def model_subject(
    name: str | None = None,
    *,
    cell: str | None = None,
    repeats: int | None = None,
    filters: int | None = None,
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    weights: Path | None = None,
    data: str | None = None,
    precision: Precision | None = "fp32",
) -> Subject:
    """A published network by name, or the network of any cell.

    Args:
        name: of `pnas_fast.zoo.list_models`; or None and ``cell``, ``repeats``, ``filters``.
        cell: text of a cell.
        repeats: N.
        filters: F.
        classes: outputs; None is what the data set has, or was published.
        size: (height, width) of images; None is what the data set has, or was published.
        weights: as `pnas_fast.zoo.create_model` takes them; None is random ones.
        data: the data set that the network was trained on.
        precision: of the ONNX file, or None: a network that is too large is refused before it is built.

    Raises:
        ExportError: a size that is refused, or a data set that does not fit.
        ZooError, CellError, DataError: as `create_model` and `load`.
    """
    found = load(data) if data else None
    shape = None
    if found is not None:
        shape, classes = found.image_shape, classes or found.classes
        if size not in (None, shape[1:]) or classes != found.classes:
            raise ExportError(
                f"size {size or shape[1:]} and {classes} classes: {data} has {shape[1:]} and {found.classes}"
            )
    elif size is not None:
        shape = (3, *size)
    build = partial(
        create_model, name, cell=cell, repeats=repeats, filters=filters, classes=classes, image_shape=shape
    )
    try:
        with torch.device("meta"):
            check_size(build(), precision)
        network = build()
        if weights is not None:  # all of them: a file is no place for a random classifier
            load_released(network, weights)
    except (ExportError, ZooError, CellError):
        raise
    except ValueError as error:
        raise ExportError(f"{name or cell}: {error}") from error
    title = name or f"{repeats} × {filters} of a cell"
    if found is not None:
        return _with_data(network, title, found)
    return Subject(network, title, of_model(name, network.image_shape))


def _with_data(network: CellNetwork, title: str, data: DataSet) -> Subject:
    takes, classes = tuple(network.image_shape), network.classifier.out_features
    if (takes, classes) != (tuple(data.image_shape), data.classes):
        raise ExportError(
            f"{title}: takes images {takes} of {classes} classes, {data.name} has {tuple(data.image_shape)} "
            f"of {data.classes}"
        )
    names = CLASS_NAMES.get(data.name.partition(":")[0]) or list(data.class_names) or None
    return Subject(network, title, of_data(data), names, data)
