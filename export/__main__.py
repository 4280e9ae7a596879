"""``python -m pnas_fast.export``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pnas_fast.cli.options import ConfigError
from pnas_fast.cli.streams import run_command
from pnas_fast.data import DataError
from pnas_fast.export.cli import parse
from pnas_fast.export.errors import ExportError, require
from pnas_fast.runs.weights import WeightsError
from pnas_fast.space import CellError
from pnas_fast.zoo import ZooError

if TYPE_CHECKING:
    from pnas_fast.export.exporting import Exported
    from pnas_fast.export.subject import Subject

BAD_INPUT = (ExportError, ZooError, WeightsError, CellError, ConfigError, DataError, ValueError, OSError)


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 2 bad input or a failed check."""
    console = Console()
    options = parse(arguments)
    try:
        require("onnx", "onnxruntime", "PIL")
        _export(console, options)
    except BAD_INPUT as error:
        print(f"python -m pnas_fast.export: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _export(console: Console, options: argparse.Namespace) -> None:
    # Here, because they need packages that were only now found to be there.
    from pnas_fast.export.exporting import export_model
    from pnas_fast.export.images import find_images
    from pnas_fast.export.model_file import Form

    with console.status("building the network") as status:
        subject = _subject(options)
        form = Form(options.precision, options.input, options.batch)
        pictures = find_images(options.images)
        exported = export_model(subject, options.output, form, pictures=pictures, progress=status.update)
    console.print(_summary(subject, options, exported))


def _subject(options: argparse.Namespace) -> Subject:
    from dataclasses import replace

    from pnas_fast.export.subject import model_subject, run_subject

    if options.run is not None:
        subject = run_subject(options.run, options.data)
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
        )
    if options.class_names is None:
        return subject
    from pnas_fast.export.class_names import read_class_names

    names = read_class_names(options.class_names, subject.network.classifier.out_features)
    return replace(subject, class_names=names)


def _summary(subject: Subject, options: argparse.Namespace, exported: Exported) -> Table:
    from pnas_fast.export.checks import TOLERANCES

    allowed = TOLERANCES[options.precision]
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    random_weights = options.run is None and options.weights is None
    table.add_row("network", subject.title + (", random weights" if random_weights else ""))
    table.add_row(
        "file", f"{exported.path}, {exported.size / 1e6:,.1f} MB, loads in {exported.load_seconds:.2f} s"
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


if __name__ == "__main__":
    sys.exit(main())
