"""``python -m pnas_fast.infer``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pnas_fast.cli.commands import one_line
from pnas_fast.cli.streams import OutputClosed, run_command
from pnas_fast.export.errors import ExportError, require
from pnas_fast.foreign import printable
from pnas_fast.infer.cli import parse

if TYPE_CHECKING:
    from pnas_fast.infer.classifier import Classifier

LONGEST_TITLE = 200
"""Characters that are shown of a foreign file's title."""

PROGRAM = "python -m pnas_fast.infer"


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 1 some files are no images, 2 bad input."""
    options = parse(arguments)
    try:
        require("onnxruntime", "PIL")
        return _infer(options)
    except OutputClosed:
        raise
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        raise
    except (ExportError, OSError, MemoryError) as error:
        _complain(error)
        return 2


def _infer(options: argparse.Namespace) -> int:
    # Here, because they need packages that were only now found to be there.
    from pnas_fast.export.images import find_images
    from pnas_fast.export.sessions import open_session
    from pnas_fast.infer.classifier import Classifier

    paths = find_images(options.paths)
    started = time.perf_counter()
    session = open_session(options.model, options.provider, options.threads)
    loaded = time.perf_counter() - started
    classifier = Classifier(session, options.classes)
    known = {name: printable(session.metadata[name][:LONGEST_TITLE]) for name in ("title", "precision")}
    height, width = classifier.images.height, classifier.images.width
    megabytes = options.model.stat().st_size / 1e6
    print(
        f"{printable(options.model)}: {known['title']}, {known['precision']}, images of {height}×{width}; "
        f"{megabytes:,.1f} MB, loaded in {loaded:.2f} s"
    )
    print(
        f"provider: asked for {session.asked}, available {' '.join(session.available)}, "
        f"runs on {' '.join(session.got)}"
    )
    if options.benchmark:
        _benchmark(classifier, paths, options.batch)
        return 0
    return _classify(classifier, paths, options)


def _classify(classifier: Classifier, paths: list[Path], options: argparse.Namespace) -> int:
    refused = 0

    def refuse(error: Exception) -> None:
        nonlocal refused
        refused += 1
        _complain(error)

    for path, guesses in classifier.classify(paths, options.batch, options.top, refuse):
        print(printable(path))
        for guess in guesses:
            print(f"  {guess.probability:7.2%}  {printable(guess.name)}")
    if refused and len(paths) > 1:
        print(f"{PROGRAM}: {refused:,} of {len(paths):,} files could not be read as images", file=sys.stderr)
    if not refused:
        return 0
    return 1 if refused < len(paths) else 2


def _complain(error: Exception) -> None:
    print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)


def _benchmark(classifier: Classifier, paths: list[Path], batch: int) -> None:
    from pnas_fast.infer.benchmark import PERCENTILES, time_session

    batch = classifier.session.batch or batch
    # Fewer images than a batch holds are taken again and again.
    chosen = [paths[index % len(paths)] for index in range(batch)] if paths else []
    found = time_session(classifier.session, classifier.read(chosen) if chosen else classifier.noise(batch))
    latencies = ", ".join(
        f"{1e3 * seconds:.1f} ms ({name} %)"
        for name, seconds in zip(PERCENTILES, found.percentiles, strict=True)
    )
    print(
        f"{found.images_per_second:,.1f} images/s; {found.runs} batches of {found.batch}, within {latencies}"
    )


if __name__ == "__main__":
    sys.exit(main())
