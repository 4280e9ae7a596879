"""Compiles every kernel that children of a search can ask for, before the search starts.

    python -m pnas_fast.kernel_tools.warm [--filters 24 --repeats 2 --blocks 5 --image 32x32x3] [--arch sm_90]

Kernels go into Triton's cache (TRITON_CACHE_DIR, else ~/.triton/cache), by the names that launches give
them, so that no child of the search waits for a compiler. They are listed by recording what children of
every pair of operations launch, training and evaluating, and compiled by several processes at once. With
a GPU they are compiled for it. Without one, --arch compiles for one that is elsewhere: its cache must then
be this one, or a copy, and its Triton the same version. What was compiled before, by the same sources, is not
listed again. Exits with 1 where a kernel does not compile.

    python -m pnas_fast.kernel_tools.warm --pack kernels.zip --arch sm_90 --python 3.12
    python -m pnas_fast.kernel_tools.warm --unpack kernels.zip

--pack also writes them to one file, for a machine with the same version of Triton; --unpack puts them there
where launches find them, and says how many would have had to be compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from pnas_fast.cli.parser import Parser, positive
from pnas_fast.cli.streams import run_command
from pnas_fast.kernel_tools.cost import DTYPES, fused_launches
from pnas_fast.kernel_tools.inspect import search_cells
from pnas_fast.kernel_tools.warmed import mark_of
from pnas_fast.kernels.triton.aot import Variant, variant_of
from pnas_fast.kernels.triton.launch import INTERPRETED, Launch, recording
from pnas_fast.network import ChildNetwork
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell, CellError, check_operations

IMAGES = 8
"""In a recorded batch: no kernel is specialised on it."""

OLDEST = 80
"""The first compute capability with bf16 in its tensor cores."""

PACKED = 90
"""What --pack is for, unless something else is asked for or here."""

KINDS = ("sep3x3", "identity", "avg_pool3x3", "max_pool3x3")
"""What a block can add: two convolutions' outputs are added alike."""

Steps = Callable[[], None]


class Children(NamedTuple):
    """What of a search decides which kernels its children launch."""

    repeats: int
    filters: int
    image: tuple[int, int, int]
    dtype: torch.dtype
    blocks: int
    operations: tuple[str, ...]

    def cells(self) -> list[Cell]:
        """Cells that together ask for every kernel."""
        all_cells = itertools.chain(search_cells(), _short_cells())
        cells = dict.fromkeys(Cell(cell.blocks[: self.blocks]) for cell in all_cells)
        # Identities too, in cells that ask for the kernels between cells of fewer blocks, and a separable
        # convolution, which stands for all in sums.
        allowed = {*self.operations, "identity", KINDS[0]}
        return [cell for cell in cells if _operations(cell) <= allowed]

    def variants(self, cell: Cell, architecture: int) -> list[Variant]:
        """The kernels of a cell's child, training and evaluating."""
        launches = fused_launches(
            cell, self.filters, IMAGES, self.dtype, architecture, repeats=self.repeats, image=self.image
        )[0]
        return [variant_of(launch) for launch in (*launches, *self._evaluating(cell, architecture))]

    def _evaluating(self, cell: Cell, architecture: int) -> list[Launch]:
        network = ChildNetwork(cell, self.repeats, self.filters, 10, self.image, backend="triton").eval()
        network.arrange()
        network.classifier.to(self.dtype)
        images = torch.empty(IMAGES, *self.image, dtype=self.dtype)
        with recording(capability=architecture) as launches, torch.inference_mode():
            network(images.contiguous(memory_format=torch.channels_last))
        return launches


def _short_cells() -> Iterator[Cell]:
    """Cells of one and two blocks, which read some cells' outputs as they are (docs/method.md, 1.3): the
    wider of `search_cells` take all of them through a convolution.
    """
    alike = [(operation, operation) for operation in OPERATIONS]
    for left, right in dict.fromkeys([*itertools.product(KINDS, repeat=2), *alike]):
        for pairs in (["00"], ["01"], ["11"], ["00", "02"], ["01", "12"], ["11", "22"]):
            yield Cell.parse(",".join(f"{pair[0]}:{left}+{pair[1]}:{right}" for pair in pairs))


def _operations(cell: Cell) -> set[str]:
    return {operation for block in cell.blocks for _, operation in block.sides}


class Outcome(NamedTuple):
    """Of warming: kernels compiled, kernels that were there, and a line for each that did not compile."""

    compiled: int
    cached: int
    errors: list[str]

    @property
    def kernels(self) -> int:
        """All of them."""
        return self.compiled + self.cached + len(self.errors)


def list_variants(children: Children, architecture: int, step: Steps = lambda: None) -> Iterator[Variant]:
    """Every kernel that children launch on a compute capability, once; ``step`` is called for each cell."""
    found = set()
    for cell in children.cells():
        for variant in children.variants(cell, architecture):
            if variant.key() not in found:
                found.add(variant.key())
                yield variant
        step()


def compile_all(
    variants: Iterable[Variant], architecture: int, processes: int, step: Steps = lambda: None
) -> Outcome:
    """Compile kernels in several processes, while more are listed; ``step`` is called after each, from any
    thread.
    """
    waiting: queue.SimpleQueue[Variant | None] = queue.SimpleQueue()
    answers: dict[Hashable, dict[str, Any]] = {}

    def feed() -> None:
        with _compiler(architecture) as ask:
            while (variant := waiting.get()) is not None:
                answers[variant.key()] = ask(variant)
                step()

    threads = [threading.Thread(target=feed, daemon=True) for _ in range(processes)]
    for thread in threads:
        thread.start()
    listed = []
    try:
        for variant in variants:
            listed.append(variant)
            waiting.put(variant)
    finally:
        for _ in threads:
            waiting.put(None)
    for thread in threads:
        thread.join()
    unanswered = {"error": "the compiling processes died"}
    found = [(variant, answers.get(variant.key(), unanswered)) for variant in listed]
    errors = [f"{variant.name()}: {answer['error']}" for variant, answer in found if "error" in answer]
    cached = sum(answer.get("cached", False) for _, answer in found)
    return Outcome(len(listed) - cached - len(errors), cached, errors)


@contextlib.contextmanager
def _compiler(architecture: int) -> Iterator[Callable[[Variant], dict[str, Any]]]:
    """A process that compiles, as a function; one that dies is replaced for the next kernel."""
    running: list[subprocess.Popen[str]] = []

    def ask(variant: Variant) -> dict[str, Any]:
        if not running:
            command = [sys.executable, "-m", "pnas_fast.kernels.triton.compiler", str(architecture)]
            running.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
                )
            )
        process = running[0]
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(variant.values()) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        _end(running.pop())
        return {"error": f"the compiling process died (exit status {process.returncode})"}

    try:
        yield ask
    finally:
        for process in running:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def architectures(asked: str | None) -> list[int]:
    """Compute capabilities to compile for: that asked for, else those of the GPUs that torch sees.

    Raises:
        ValueError: neither is one.
    """
    if asked is not None:
        if not re.fullmatch(r"sm_\d{2,3}", asked) or int(asked[3:]) < OLDEST:
            raise ValueError(f"--arch {asked}: allowed is sm_NN, say sm_90, from sm_{OLDEST}")
        return [int(asked[3:])]
    if not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA GPU here; name the one that kernels are for, say --arch sm_90")
    capabilities = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
    return sorted({10 * major + minor for major, minor in capabilities})


def _image(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})x(\d{1,4})", text)
    if match is None or "0" in match.groups():
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is HxWxC, say 32x32x3")
    height, width, channels = map(int, match.groups())
    return channels, height, width


def _python(text: str) -> str:
    if not re.fullmatch(r"3\.\d{1,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is a version of Python, say 3.12")
    return text


def _parser() -> Parser:
    title, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m pnas_fast.kernel_tools.warm",
        description=title,
        epilog=rest.partition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--filters", type=positive, default=24, help="F of the children")
    parser.add_argument("--repeats", type=positive, default=2, help="N of the children")
    parser.add_argument(
        "--blocks", type=int, choices=range(1, MAX_BLOCKS + 1), default=MAX_BLOCKS, help="B of the cells"
    )
    parser.add_argument("--image", type=_image, default="32x32x3", metavar="HxWxC", help="of the data set")
    parser.add_argument("--operations", default=",".join(OPERATIONS), help="of the cells")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of activations")
    parser.add_argument(
        "--arch", help="a compute capability, where not that of the GPUs here", metavar="sm_NN"
    )
    archive = parser.add_mutually_exclusive_group()
    archive.add_argument("--pack", type=Path, metavar="FILE", help="also write the kernels to this file")
    archive.add_argument(
        "--unpack", type=Path, metavar="FILE", help="only put a file's kernels into the cache"
    )
    parser.add_argument("--python", type=_python, metavar="3.N", help="that --pack is for, else the one here")
    parser.add_argument("--most", type=positive, metavar="N", help="pack only the first so many")
    parser.add_argument(
        "--processes", type=positive, default=len(os.sched_getaffinity(0)), help="that compile side by side"
    )
    return parser


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Compile; 1 where a kernel does not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        if INTERPRETED:
            raise ValueError("TRITON_INTERPRET is set: nothing is compiled in the interpreter")
        if options.unpack is not None:
            return _unpack(options.unpack, options.arch)
        operations = check_operations(tuple(options.operations.split(",")))
        wanted = _wanted(options)
    except (ValueError, CellError) as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"{error.filename or options.unpack}: {error.strerror}")
    children = Children(
        # A fourth cell of a stage asks for what the third does.
        min(options.repeats, 3), options.filters, options.image, DTYPES[options.dtype],
        options.blocks, operations,
    )  # fmt: skip
    if options.pack is not None:
        return _pack(children, wanted[0], options)
    outcomes = [_warm(children, architecture, options.processes, options.dtype) for architecture in wanted]
    if not torch.cuda.is_available():
        print(
            f"No GPU here ran any of them. Triton {triton.__version__} finds them, on a machine with such a "
            f"GPU, in {triton.knobs.cache.dir} or a copy of it (TRITON_CACHE_DIR)."
        )
    return 1 if any(outcome.errors for outcome in outcomes) else 0


def _refused(why: str) -> int:
    print(f"python -m pnas_fast.kernel_tools.warm: error: {why}", file=sys.stderr)
    return 2


def _wanted(options: argparse.Namespace) -> list[int]:
    """Compute capabilities: a packed file has one, Hopper's where there is no GPU."""
    if options.pack is None:
        for name in ("python", "most"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is an option of --pack")
        return architectures(options.arch)
    if not options.pack.absolute().parent.is_dir():
        raise ValueError(f"--pack {options.pack}: no folder {options.pack.parent}")
    if options.arch is None and not torch.cuda.is_available():
        return [PACKED]
    found = architectures(options.arch)
    if len(found) > 1:
        raise ValueError(f"--pack is for one kind of GPU, here are {len(found)}: name one by --arch")
    return found


def _pack(children: Children, architecture: int, options: argparse.Namespace) -> int:
    # Here, so that a benchmark without this library can compile too.
    from pnas_fast.kernel_tools.packed import PackError, pack, this_python

    variants = list(itertools.islice(list_variants(children, architecture), options.most))
    outcome = compile_all(variants, architecture, options.processes)
    for line in outcome.errors:
        print(line, file=sys.stderr)
    if outcome.errors:
        return 1
    python = options.python or this_python()
    try:
        size = pack(options.pack, variants, architecture, python)
    except PackError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"--pack {options.pack}: {error.strerror}")
    print(
        f"{options.pack}: {outcome.kernels} kernels in {size / 1e6:.1f} MB for sm_{architecture}, "
        f"Triton {triton.__version__}, Python {python}; {outcome.compiled} were compiled for it"
    )
    return 0


def _unpack(path: Path, asked: str | None) -> int:
    from pnas_fast.kernel_tools.packed import unpack

    here = architectures(asked) if asked is not None or torch.cuda.is_available() else []
    found = unpack(path, here)
    print(
        f"{path}: {found.put + found.there} kernels; {found.put} would have had to be compiled and are now "
        f"in {triton.knobs.cache.dir}, {found.there} were there"
    )
    return 0


def _warm(children: Children, architecture: int, processes: int, dtype: str) -> Outcome:
    mark = mark_of(children, architecture)
    if mark.exists():
        print(f"kernels for sm_{architecture} in {dtype}: all were compiled before")
        return Outcome(0, 0, [])
    # Here, so that a benchmark without these libraries can compile too.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(), transient=True) as bar:
        listing = bar.add_task("listing kernels", total=len(children.cells()))
        compiling = bar.add_task(f"compiling for sm_{architecture}", total=None)

        def listed() -> Iterator[Variant]:
            for number, variant in enumerate(
                list_variants(children, architecture, lambda: bar.advance(listing)), start=1
            ):
                bar.update(compiling, total=number)
                yield variant

        outcome = compile_all(listed(), architecture, processes, lambda: bar.advance(compiling))
    for line in outcome.errors:
        print(line, file=sys.stderr)
    if not outcome.errors:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    print(
        f"{outcome.kernels} kernels for sm_{architecture} in {dtype}: {outcome.compiled} compiled, "
        f"{outcome.cached} were there, {len(outcome.errors)} failed, {time.monotonic() - started:.0f} s "
        f"on {processes} processes"
    )
    return outcome


if __name__ == "__main__":
    sys.exit(main())
