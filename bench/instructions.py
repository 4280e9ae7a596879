"""Fails when a CPU kernel executes more instructions than it did: steadier than time, and blind to memory.

    python bench/instructions.py             compare with bench/instructions.json; 1 if anything is worse
    python bench/instructions.py --update    write this build's counts there

Valgrind counts the calls of `count_calls`, on AVX2, the widest that it knows. Counts depend on the compiler
that built the kernels. Where that is not the baseline's, or where there is no valgrind or no AVX2, nothing
can be compared: a line says so, and it is a failure unless ``--allow-uncompared`` is given, with the reasons
that are expected (compiler, valgrind, avx2) or with none for any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from count_calls import MARKER
from pnas_fast import _cpu_kernels
from pnas_fast.files import write_text

BASELINE = Path(__file__).with_name("instructions.json")
DRIVER = Path(__file__).with_name("count_calls.py")
MODULE = Path(_cpu_kernels.__file__)
MARGIN = 0.02
"""A count is the same each time; small changes elsewhere in the build move it a little."""


REASONS = ("compiler", "valgrind", "avx2")
"""What may keep counts from being compared."""


class CountError(ValueError):
    """A count or a baseline that is not as it must be; the message is one line for people."""


class UncomparedError(Exception):
    """There is nothing to compare with, for one of `REASONS`; the message is one line for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def compiler(module: Path) -> str:
    """What built a module, as it says itself."""
    found = re.search(rb"(GCC: \([^)]*\) [\d.]+|clang version [\d.]+)", module.read_bytes())
    return found[0].decode() if found else "an unknown compiler"


def require_counter() -> None:
    """See that instructions can be counted here.

    Raises:
        UncomparedError: there is no valgrind, or no AVX2.
    """
    if shutil.which("valgrind") is None:
        raise UncomparedError("valgrind", "there is no valgrind here")
    if _cpu_kernels.instruction_set() == "plain":
        raise UncomparedError("avx2", "this machine has no AVX2")


def count() -> dict[str, int]:
    """Instructions of each call of the driver."""
    with TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        command = ["valgrind", "--tool=callgrind", f"--dump-before={MARKER}"]
        command += [f"--callgrind-out-file={profile}", sys.executable, "-I", "-S", str(DRIVER), str(MODULE)]
        environment = dict(os.environ, PNAS_FAST_CPU="avx2")
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise CountError(f"valgrind ended with {result.returncode}: {result.stderr.strip()[-300:]!r}")
        # Dump 1 ends before the first call, dump 2 after it, and so on.
        return {
            name: _total(profile.with_name(f"profile.{2 * number}"))
            for number, name in enumerate(result.stdout.splitlines(), 1)
        }


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def read(path: Path) -> tuple[str, dict[str, int]]:
    """The compiler of a baseline, and its counts."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        built_by, counts = str(found["compiler"]), dict(found["instructions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CountError(f"{path}: {type(error).__name__} {error}, allowed is what --update writes") from None
    for name, instructions in counts.items():
        if type(instructions) is not int or instructions < 1:
            raise CountError(f"{path}: {name} is {instructions!r}, allowed is a whole number above 0")
    return built_by, counts


def compare(expected: dict[str, int], found: dict[str, int]) -> list[str]:
    """What is wrong with counts."""
    complaints = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in expected:
            complaints.append(f"{name}: has no baseline; make bench-baseline")
        elif name not in found:
            complaints.append(f"{name}: in the baseline, but not counted; make bench-baseline")
        elif (worse := found[name] / expected[name] - 1) > MARGIN:
            complaints.append(
                f"{name}: {found[name]:,} instructions, baseline {expected[name]:,}: {worse:.1%} worse, "
                f"allowed are {MARGIN:.0%}"
            )
    return complaints


def check() -> list[str]:
    """Count, print the table, and return what is wrong.

    Raises:
        UncomparedError: this build cannot be compared with the baseline.
    """
    built_by, expected = read(BASELINE)
    require_counter()
    if built_by != (here := compiler(MODULE)):
        raise UncomparedError("compiler", f"the baseline's compiler is {built_by}, this build's is {here}")
    found = count()
    for name, instructions in found.items():
        print(f"{name:35} {instructions:12,} instructions, baseline {expected.get(name, 0):12,}")
    return compare(expected, found)


def update() -> list[str]:
    """Write this build's counts to the baseline; nothing is wrong then.

    Raises:
        UncomparedError: instructions cannot be counted here.
    """
    require_counter()
    content = {"compiler": compiler(MODULE), "instructions": count()}
    write_text(BASELINE, json.dumps(content, indent=1) + "\n")
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 no more than before, 1 worse or not compared, 2 bad input."""
    parser = argparse.ArgumentParser(prog="bench/instructions.py", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--update", action="store_true", help="write this build's counts to the baseline")
    what.add_argument(
        "--allow-uncompared", nargs="*", choices=REASONS, help="no failure where nothing can be compared"
    )
    wanted = parser.parse_args(arguments)
    allowed = REASONS if wanted.allow_uncompared == [] else wanted.allow_uncompared or ()
    try:
        complaints = update() if wanted.update else check()
    except CountError as error:
        print(f"bench/instructions.py: error: {error}", file=sys.stderr)
        return 2
    except UncomparedError as error:
        print(f"bench/instructions.py: not compared: {error}", file=sys.stderr)
        return 0 if error.reason in allowed else 1
    for complaint in complaints:
        print(f"bench/instructions.py: worse: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
