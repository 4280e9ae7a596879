"""The command line of an export."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pnas_fast.cli.commands import Parser
from pnas_fast.cli.parser import LARGEST_BATCH, positive, up_to
from pnas_fast.export.formats import FORMATS, format_of

_side = up_to(4096)  # as `image_format.LONGEST_SIDE`, which is behind slow imports

DESCRIPTION = """\
Write a network as one ONNX file for ONNX Runtime, TensorRT and others: batch norm folded into convolutions,
no training left in it. Before the file appears, ONNX checks it and ONNX Runtime's logits are compared with
PyTorch's, on random images and on real ones where there are some. Or write it for PyTorch alone, without this
package, compared in the same way: as a program of torch.export, or as one readable Python file of plain
modules with its weights beside it (NAME.py and NAME.safetensors). Or, with --study, add the trials of a
search to a study of Optuna."""

EXAMPLES = """\
examples:
  python -m pnas_fast.export --run runs/paper --output best.onnx       the best child of a search
  python -m pnas_fast.export --run runs/paper --precision int8 --output best-int8.onnx
  python -m pnas_fast.export --run runs/paper --pick "parameters<=3e5" --output small.onnx
  python -m pnas_fast.export --model pnasnet5_large --weights F.pth --output large.onnx
  python -m pnas_fast.export --model pnasnet5_mobile --weights F.pth --input uint8 \\
      --precision int8 --images photos/ --output mobile.onnx
  python -m pnas_fast.export --cell 0:sep5x5+1:max_pool3x3 --repeats 2 --filters 24 --output cell.onnx
  python -m pnas_fast.export --run runs/paper --output best.py         and best.safetensors
  python -m pnas_fast.export --run runs/paper --output best.pt2        for torch.export.load
  python -m pnas_fast.export --run runs/paper --study sqlite:///studies.db     for optuna-dashboard

A file says what it is: its cell, classes and preprocessing; ONNX's also accuracy where that was measured.
python -m pnas_fast.infer runs ONNX files on images; load() in a Python file gives the network."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read a command line; exits with status 2 and one line where it is not allowed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.study is not None:
        _check_study(parser, options)
        return options
    if options.study_name is not None:
        parser.error("--study-name goes with --study")
    if options.output is None:
        parser.error("the following arguments are required: --output, or --study")
    if options.cell is not None and (options.repeats is None or options.filters is None):
        parser.error("--cell needs --repeats and --filters")
    given = {name: getattr(options, name) for name in ("repeats", "filters")}
    if options.cell is None and any(value is not None for value in given.values()):
        parser.error("--repeats and --filters go with --cell: a model and a run have their own")
    if options.run is None and options.pick:
        parser.error("--pick goes with --run")
    if options.run is not None:
        for name in ("weights", "classes", "image"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} does not go with --run, which has its own")
    if options.output.exists() and not options.output.is_file():
        parser.error(f"--output {options.output}: is no file, expected a file or a new name")
    try:
        options.format = format_of(options.output, options.format)
    except ValueError as error:
        parser.error(f"--output {options.output}: {error}")
    if options.format != "onnx" and (options.precision != "fp32" or options.batch is not None):
        name = "batch" if options.precision == "fp32" else "precision"
        parser.error(
            f"--{name} {getattr(options, name)} does not go with --format {options.format}, which is written "
            "in fp32 for any number of images; onnx has both"
        )
    folder = options.output.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        parser.error(f"--output {options.output}: {folder} is not a folder that can be written to")
    return options


def _check_study(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with one line where something was given that trials do not need, or no run."""
    if options.run is None:
        parser.error("--study needs --run")
    for name, value in vars(options).items():
        if name not in ("run", "study", "study_name") and value != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} does not go with --study")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pnas_fast.export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    what = parser.add_argument_group("the network")
    one = what.add_mutually_exclusive_group(required=True)
    one.add_argument("--run", type=Path, metavar="RUN", help="a search's folder: its best child, as trained")
    one.add_argument(
        "--model", metavar="NAME", help="a published network; python -m pnas_fast.zoo lists them"
    )
    one.add_argument("--cell", metavar="TEXT", help="any cell, such as a search prints")
    what.add_argument(
        "--pick",
        metavar="LIMIT",
        action="append",
        default=[],
        help="of a run: its best child that keeps a limit such as parameters<=3e5; may be repeated",
    )
    what.add_argument("--repeats", type=up_to(100), metavar="N", help="of a cell: 3N cells")
    what.add_argument(
        "--filters", type=up_to(65_536), metavar="F", help="of a cell: channels of its first blocks"
    )
    what.add_argument(
        "--weights", type=Path, metavar="FILE", help="released or own weights; random ones without it"
    )
    what.add_argument("--classes", type=positive, metavar="N", help="outputs [published, or 10 for a cell]")
    what.add_argument(
        "--image", type=_size, metavar="N|HxW", help="size of images [published, or 32 for a cell]"
    )
    form = parser.add_argument_group("the file")
    form.add_argument("--output", type=Path, metavar="FILE", help="where it goes")
    form.add_argument(
        "--format",
        choices=FORMATS,
        help="onnx; torch_export: a program for torch.export.load; source: a Python file of plain PyTorch "
        "and its weights as safetensors [by the ending of --output: .onnx, .pt2, .py; else onnx]",
    )
    form.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of ONNX: fp16 is for GPUs; int8 is about a quarter of the size, and on CPUs with VNNI "
        "several times as fast for large networks [fp32]",
    )
    form.add_argument(
        "--input",
        choices=("float32", "uint8"),
        default="float32",
        help="float32: normalised (batch, C, H, W); uint8: (batch, H, W, C) as decoded, normalised inside "
        "[float32]",
    )
    form.add_argument(
        "--batch", type=up_to(LARGEST_BATCH), metavar="N", help="of ONNX: images at a time [any number]"
    )
    form.add_argument(
        "--class-names", type=Path, metavar="FILE", help="a name a line [the data set's, if it is known]"
    )
    real = parser.add_argument_group("real images")
    real.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        action="append",
        default=[],
        help="image or folder to check with, and to calibrate int8; may be repeated",
    )
    real.add_argument(
        "--data",
        metavar="SPEC",
        help="digits or cifar10:DIR, which the network was trained on: gives preprocessing, calibration and "
        "accuracy [the run's]",
    )
    study = parser.add_argument_group("trials instead of a network")
    study.add_argument(
        "--study", metavar="URL", help="add the trials of --run to a study of Optuna, such as sqlite:///FILE"
    )
    study.add_argument("--study-name", metavar="NAME", help="its name [that of the run's folder]")
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _side(height), _side(width or height)
