"""What ``python -m pnas_fast.export`` does once its command line is read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pnas_fast.cli.commands import one_line
from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataError
from pnas_fast.export.checks import TOLERANCES
from pnas_fast.export.class_names import read_class_names
from pnas_fast.export.errors import ExportError
from pnas_fast.export.exporting import Exported, export_model
from pnas_fast.export.images import find_images
from pnas_fast.export.model_file import Form
from pnas_fast.export.plain import export_program, export_source
from pnas_fast.export.subject import Subject, model_subject, run_subject
from pnas_fast.foreign import printable
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.weights import WeightsError
from pnas_fast.space import CellError
from pnas_fast.zoo import ZooError

BAD_INPUT = (CellError, ConfigError, DataError, RunError, StoreError, WeightsError, ZooError)

UNFOLDED = 10_000
"""Columns of the summary where the output is no terminal: a path is one line there."""


def export(options: argparse.Namespace) -> None:
    """Write the file that a command line asks for, and say how it was checked.

    Raises:
        ExportError: bad input or a failed check.
        OSError: a file that cannot be read or written.
    """
    # Names and paths are shown as they are: brackets in them are no markup, colons no emoji.
    width = None if sys.stdout.isatty() else UNFOLDED
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    try:
        with console.status("building the network") as status:
            subject = _subject(options)
            pictures = find_images(options.images)
            exported = _exported(subject, options, pictures, status.update)
    except BAD_INPUT as error:
        raise ExportError(one_line(error)) from error
    console.print(_summary(subject, options, exported))


def _exported(
    subject: Subject, options: argparse.Namespace, pictures: list[Path], progress: Callable[[str], None]
) -> Exported:
    if options.format == "onnx":
        form = Form(options.precision, options.input, options.batch)
        return export_model(subject, options.output, form, pictures=pictures, progress=progress)
    write = export_source if options.format == "source" else export_program
    return write(subject, options.output, options.input, pictures=pictures, progress=progress)


def _subject(options: argparse.Namespace) -> Subject:
    if options.run is not None:
        subject = run_subject(options.run, options.data, options.pick)
    else:
        subject = model_subject(
            options.model,
            cell=options.cell,
            repeats=options.repeats,
            filters=options.filters,
            classes=options.classes,
            size=options.image,
            weights=options.weights,
            data=options.data,
            precision=options.precision if options.format == "onnx" else None,
        )
    if options.class_names is None:
        return subject
    names = read_class_names(options.class_names, subject.network.classifier.out_features)
    return replace(subject, class_names=names)


def _summary(subject: Subject, options: argparse.Namespace, exported: Exported) -> Table:
    allowed = TOLERANCES[options.precision]
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    random_weights = options.run is None and options.weights is None
    table.add_row("network", printable(subject.title) + (", random weights" if random_weights else ""))
    files = " and ".join(printable(path) for path in (exported.path, exported.weights) if path is not None)
    loads = "" if exported.load_seconds is None else f", loads in {exported.load_seconds:.2f} s"
    table.add_row(
        "file" if exported.weights is None else "files", f"{files}, {exported.size / 1e6:,.1f} MB{loads}"
    )
    if options.precision != "int8":
        table.add_row(
            "random images",
            f"logits differ from PyTorch's by {exported.random.error:.1g}, allowed is {allowed:g}",
        )
    if exported.real is not None:
        table.add_row(
            "real images",
            f"logits of {exported.real.images:,} differ by {exported.real.error:.1g}, allowed is "
            f"{allowed:g}; the same first class in {exported.real.agreement:.2%}",
        )
    accuracy = exported.accuracy
    if accuracy is not None:
        table.add_row(
            "accuracy",
            f"{accuracy.file:.2%} of {accuracy.images:,} validation images, PyTorch {accuracy.network:.2%}: "
            f"{100 * (accuracy.file - accuracy.network):+.2f} points",
        )
    table.add_row("took", f"{exported.seconds:.1f} s")
    return table
