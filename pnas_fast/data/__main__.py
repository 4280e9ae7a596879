"""``python -m pnas_fast.data describe``: what a data set is, before anything is trained on it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pnas_fast.cli.commands import Parser, add_switch, one_line, say
from pnas_fast.cli.options import SWITCH, ConfigError
from pnas_fast.cli.parser import up_to
from pnas_fast.cli.streams import run_command
from pnas_fast.data import DataError, DataSet, Pictures, fetchable, forms, source
from pnas_fast.data.augmentation import augmented, check_cutout
from pnas_fast.data.summary import contact_sheet, summary
from pnas_fast.data.watching import watching
from pnas_fast.files import replacing

PROGRAM = "python -m pnas_fast.data"

DESCRIPTION = """\
Say what a data set is: the shape of its images, its classes, how many images of each there are to train,
validate and test on, mean and standard deviation. The same text after --data trains on it."""

EXAMPLES = """\
examples:
  python -m pnas_fast.data describe fashion
  python -m pnas_fast.data describe folder:photos --image-size 64 --sheet photos.png
  python -m pnas_fast.data describe npz:pathmnist.npz
  python -m pnas_fast.data describe idx:emnist#letters,transposed
  python -m pnas_fast.data describe fashion --no-flip --crop-padding 2 --cutout 8 --sheet augmented.png"""

MOST_PIXELS_A_SIDE = 4096


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 2 bad input."""
    options = parse(arguments)
    console = Console()
    try:
        data = _open(console, options)
        check_cutout(data, options.cutout)
        for line in summary(data, options.cutout):
            say(console, line)
        if options.sheet is not None:
            with replacing(options.sheet) as temporary:
                contact_sheet(data, options.cutout).save(temporary, "PNG")
    except (ConfigError, DataError, OSError, MemoryError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _open(console: Console, options: argparse.Namespace) -> DataSet:
    with watching(console, options.source) as watch:
        pictures = Pictures(
            options.image_size,
            options.skip_unreadable,
            options.cache,
            say=watch.say,
            progress=watch.decoded,
        )
        found = source(options.source, download=options.download, progress=watch.fetched, pictures=pictures)
        data: DataSet = augmented(found, options.flip or SWITCH[0], options.crop_padding).open()
        return data


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line; exits with status 2 and one line where it is not allowed."""
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    parser.add_argument("command", metavar="describe", choices=["describe"], help="say what it is")
    parser.add_argument("source", metavar="SOURCE", help=f"data set: {forms()}")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write a PNG of the first images of each class, a row each, and a row of augmented ones",
    )
    parser.add_argument(
        "--image-size",
        type=up_to(MOST_PIXELS_A_SIDE),
        default=0,
        metavar="N",
        help="resize images of a folder to so many pixels a side; by default they are as they are",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave files of a folder out that are no images"
    )
    parser.add_argument("--cache", default="", metavar="DIR", help="folder for decoded images")
    add_switch(parser, "flip", "as of a training: mirror images at random; by default as the data set says")
    for name, default, what in (
        ("--crop-padding", -1, "pixels that random crops move by; by default as the data set says"),
        ("--cutout", 0, "side of a square blanked out of every image; by default there is none"),
    ):
        parser.add_argument(
            name, type=up_to(MOST_PIXELS_A_SIDE, 0), default=default, metavar="N", help=f"likewise: {what}"
        )
    parser.add_argument("--download", action="store_true", help=f"fetch {fetchable()} where it is missing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
