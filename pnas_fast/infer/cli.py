"""The command line of inference."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pnas_fast.cli.commands import Parser
from pnas_fast.cli.parser import LARGEST_BATCH, positive, up_to
from pnas_fast.export.providers import PROVIDERS

DESCRIPTION = """\
Classify images with a file that python -m pnas_fast.export wrote, in ONNX Runtime: the most probable classes
of every image. The file itself says how images are cropped, resized and normalised. Which provider was asked
for, which there are and which one runs is said on the first lines."""

EXAMPLES = """\
examples:
  python -m pnas_fast.infer --model best.onnx cat.jpg photos/
  python -m pnas_fast.infer --model best.onnx photos/ --provider cuda --batch 64 --top 1
  python -m pnas_fast.infer --model best.onnx --benchmark --batch 1      latency, without any image"""

THREADS_A_CORE = 4
"""More of them wait for each other; ONNX Runtime crashes at many."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read a command line; exits with status 2 and one line where it is not allowed."""
    parser = Parser(prog="python -m pnas_fast.infer", description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help="image, or folder of images")
    parser.add_argument("--model", type=Path, metavar="FILE", required=True, help="an ONNX file of an export")
    parser.add_argument(
        "--provider",
        choices=("auto", *PROVIDERS),
        default="auto",
        help="what runs it; auto is CUDA where there is one, else the CPU; tensorrt builds its engine for "
        "minutes first [auto]",
    )
    parser.add_argument(
        "--threads",
        type=up_to(THREADS_A_CORE * (os.cpu_count() or 1)),
        default=0,
        metavar="N",
        help="of the CPU [one a core]",
    )
    parser.add_argument(
        "--batch", type=up_to(LARGEST_BATCH), default=8, metavar="N", help="images at a time [8]"
    )
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="classes shown of an image [5]")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="a name a line [the file's own]")
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="time batches of these images, or of noise: images a second, percentiles of a batch's latency",
    )
    options = parser.parse_args(arguments)
    if not options.paths and not options.benchmark:
        parser.error("no image: allowed are images, folders of them, or --benchmark")
    return options
