"""``python -m pnas_fast.infer``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pnas_fast.cli.streams import run_command
from pnas_fast.export.errors import ExportError, require
from pnas_fast.infer.cli import parse

if TYPE_CHECKING:
    from pnas_fast.infer.classifier import Classifier


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 2 bad input."""
    options = parse(arguments)
    try:
        require("onnxruntime", "PIL")
        _infer(options)
    except (ExportError, OSError) as error:
        print(f"python -m pnas_fast.infer: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _infer(options: argparse.Namespace) -> None:
    # Here, because they need packages that were only now found to be there.
    from pnas_fast.export.images import find_images
    from pnas_fast.export.sessions import open_session
    from pnas_fast.infer.classifier import Classifier

    paths = find_images(options.paths)
    started = time.perf_counter()
    session = open_session(options.model, options.provider, options.threads)
    loaded = time.perf_counter() - started
    classifier = Classifier(session, options.classes)
    known = session.metadata
    height, width = classifier.images.height, classifier.images.width
    megabytes = options.model.stat().st_size / 1e6
    print(
        f"{options.model}: {known['title']}, {known['precision']}, images of {height}×{width}; "
        f"{megabytes:,.1f} MB, loaded in {loaded:.2f} s"
    )
    print(
        f"provider: asked for {session.asked}, available {' '.join(session.available)}, "
        f"runs on {' '.join(session.got)}"
    )
    if options.benchmark:
        _benchmark(classifier, paths, options.batch)
    else:
        for path, guesses in classifier.classify(paths, options.batch, options.top):
            print(path)
            for guess in guesses:
                print(f"  {guess.probability:7.2%}  {guess.name}")


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
