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
    declared = versions([*project["dependencies"], *extras["deploy"], *extras["test"]], ">=")
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = versions([line for line in lines if not line.startswith("#")], "==")
    assert lowest == {name: version for name, version in declared.items() if name != ITSELF}
