"""The declared lower bounds, and the constraints that CI runs with once."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

ITSELF = "pnas-fast"


def versions(requirements: list[str], sign: str) -> dict[str, tuple[int, ...]]:
    found = {}
    for requirement in requirements:
        name, _, version = re.split(r"[;\[ ]", requirement)[0].partition(sign)
        numbers = [int(part) for part in version.split(".") if part]
        while numbers and not numbers[-1]:
            numbers.pop()
        found[name.lower().replace("_", "-")] = tuple(numbers)
    return found


def test_constraints_are_the_declared_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tested = re.findall(r"\w+", next(line for line in extras["test"] if line.startswith("pnas_fast["))[9:])
    own = [line for name in tested for line in extras[name]]
    declared = versions([*project["dependencies"], *own, *extras["test"]], ">=")
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = versions([line for line in lines if not line.startswith("#")], "==")
    assert lowest == {name: version for name, version in declared.items() if name != ITSELF}
