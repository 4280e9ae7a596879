"""Everything a card must answer, in one command of at most ten minutes.

    python bench/lease.py --out DIR [--limit 570] [--kernels FILE] [--against TREE] [--parts A,B] [--dry-run]

Parts run in the order of what matters most (`lease_parts.py`), each in a process of its own, with a limit of
its own: one that hangs or dies loses only itself, and what it found until then is kept. DIR/lease.json and
DIR/lease.txt are written anew after each part, and the table is printed at the end, on SIGTERM and Ctrl-C
too. What is expected was written down before (`lease_predictions.py`) and stands beside what was measured.
A part whose tool is missing says which, and the others go on.

--kernels unpacks a file that `--pack FILE --python 3.12` made, on any machine with the same Triton, or that
`python -m pnas_fast.kernel_tools.warm --pack FILE` made: compiling takes two of the ten minutes. --against
times another checkout's training step in turns with this one's.

Needs a CUDA card, torch, numpy, Triton and the checkout: no network, no installation; without compiled
modules all but the search. Without a card, and with --dry-run, every part runs to its end with stand-ins.
Exits with 1 where a check or a part failed.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()
"""Importing PyTorch counts."""

ROOT = Path(__file__).resolve().parent.parent

RESERVE = 4.0
"""Seconds of the limit that are kept for the table."""

LEAST = 3.0
"""Seconds without which no part is begun."""

MOST_SECONDS = 3600
"""Of --limit."""


def stand_in(name: str, **members: Any) -> None:
    """A module with these members, in place of one that is not there."""
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def is_missing(name: str) -> bool:
    """Whether there is no such module."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return True
    return False


def import_from(tree: Path) -> None:
    """Let ``pnas_fast`` be a checkout's, before anything imports it.

    Without compiled modules the package itself cannot be imported, but kernels, networks, training and
    workers can; the kernels of CPUs are asked for nothing here, and weights of children are not kept.
    """
    sys.path.insert(0, str(tree))
    if not list((tree / "pnas_fast").glob("_*.so")):
        stand_in("pnas_fast", __path__=[str(tree / "pnas_fast")])
        if is_missing("safetensors"):
            stand_in("safetensors", SafetensorError=Exception, safe_open=None)
            stand_in("safetensors.torch", load_file=None, save=lambda *_: b"")


def parser() -> argparse.ArgumentParser:
    """Options."""
    title, _, rest = (__doc__ or "").partition("\n\n")
    made = argparse.ArgumentParser(
        description=title, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, help="folder of lease.json and lease.txt")
    made.add_argument("--limit", type=_seconds, default=570, help="seconds of all parts together")
    made.add_argument("--kernels", type=Path, metavar="FILE", help="kernels that were packed elsewhere")
    made.add_argument("--pack", type=Path, metavar="FILE", help="only write a file for --kernels, for sm_90")
    made.add_argument("--python", metavar="3.N", help="that --pack is for, else the one here")
    made.add_argument("--against", type=Path, metavar="TREE", help="another checkout")
    made.add_argument("--parts", metavar="A,B", help="only these, by name")
    made.add_argument("--dry-run", action="store_true", help="stand-ins, whatever there is")
    made.add_argument("--inside", help=argparse.SUPPRESS)
    made.add_argument("--tree", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return made


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_SECONDS):
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is a whole number from 1 to {MOST_SECONDS}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 where a check or a part failed, 2 for bad input."""
    made = parser()
    options = made.parse_args(arguments)
    if options.inside is None and options.pack is None and options.out is None:
        made.error("--out DIR is missing")
    for name in ("against", "tree"):
        tree = getattr(options, name)
        if tree is not None and not (tree / "pnas_fast").is_dir():
            made.error(f"--{name} {tree}: no checkout, which has a folder pnas_fast")
    if options.kernels is not None and not options.kernels.is_file():
        made.error(f"--kernels {options.kernels}: no such file")
    import_from(options.tree.resolve())
    import gpu_cases
    import lease_parts

    if options.inside is not None:
        return lease_parts.inside(options.inside, dry=options.dry_run)
    if options.pack is not None:
        if not options.pack.absolute().parent.is_dir():
            made.error(f"--pack {options.pack}: no folder {options.pack.parent}")
        try:
            return lease_parts.pack(options.pack, options.python, gpu_cases.cases())
        except (ValueError, OSError) as error:
            made.error(f"--pack: {error}")
    allowed = [part.name for part in lease_parts.PARTS]
    for name in [] if options.parts is None else options.parts.split(","):
        if name not in allowed:
            made.error(f"--parts {name!r}: no such part, allowed are {', '.join(allowed)}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        made.error(f"--out {options.out}: {error.strerror}")
    return run(options)


def run(options: argparse.Namespace) -> int:
    """All parts, as far as the time reaches."""
    import lease_parts
    from lease_process import Stopped, run_part, stop_by_signals, write_json
    from lease_table import lines

    with tempfile.TemporaryDirectory(prefix="lease-") as folder, stop_by_signals():
        lease = lease_parts.begin(options, Path(folder))

        def write() -> list[str]:
            table = lines(lease.report)
            write_json(options.out / "lease.json", lease.report)
            write_json(options.out / "lease.txt", "\n".join(table) + "\n")
            return table

        status = 0
        try:
            for part in lease_parts.PARTS:
                # Whether there is a card at all, is always asked.
                if options.parts is not None and part.name not in ("facts", *options.parts.split(",")):
                    continue
                left = options.limit - RESERVE - (time.monotonic() - BEGAN)
                if left < LEAST:
                    lease.report["parts"][part.name] = {"status": "left out: no time is left", "result": None}
                    continue
                print(f"{part.name} …", flush=True)
                try:
                    run_part(part, lease, min(part.limit, left))
                finally:
                    lease_parts.end(lease)
                lease_parts.after(part, lease)
                write()
        except Stopped as stopped:
            lease.report["stopped"] = signal.Signals(stopped.number).name
            status = 128 + stopped.number
        print(*write(), sep="\n", flush=True)
    return status or int(lease_parts.has_failed(lease.report))


if __name__ == "__main__":
    sys.exit(main())
