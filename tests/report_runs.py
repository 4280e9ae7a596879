"""Runs to report on, and a reader of their pages."""

import json
import random
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from cells import random_cells
from pnas_fast.protocols import Measurement, Proposal
from pnas_fast.report.page import write_report
from pnas_fast.runs.store import TrialStore
from pnas_fast.space import OPERATIONS, Cell

HOSTILE = "<script>alert('x')</script> & \"quotes\" </script><!-- "
VALIDATION_IMAGES = 400
VOID = {"meta", "link", "br", "wbr", "img", "hr", "input"}


def distinct_cells(level: int, number: int, generator: random.Random) -> list[str]:
    """Texts of so many cells no two of which are the same in another order."""
    found: dict[str, str] = {}
    while len(found) < number:
        (text,) = random_cells(level, 1, generator)
        found.setdefault(str(Cell.parse(text).canonical()), text)
    return list(found.values())


def random_measurement(name: Any, failed: bool, generator: random.Random) -> Measurement:
    # One in ten is far below the others.
    accuracy = generator.choice([0.8] * 9 + [0.1]) + 0.19 * generator.random()
    values = {
        "seconds": generator.uniform(0.5, 9),
        "images_per_second": 1000.0,
        "images_seen": float(generator.randrange(1, 40_000)),
        "parameters": float(generator.randrange(1_000, 900_000)),
        "multiply_adds": float(generator.randrange(10_000, 200_000_000)),
        "evaluation_seconds": 0.0 if failed else 0.25,
        "waiting_seconds": generator.random(),
    }
    if failed:
        return Measurement("failed", values, f"{HOSTILE} {name}", {"loss": (2.0, 9.0)}, "cpu")
    values |= {"accuracy": accuracy, "loss": generator.random(), "memory": 3.0 * 2**30}
    return Measurement("done", values, None, {"loss": (2.0, 1.0 + generator.random())}, "cuda:0")


def write_run(
    folder: Path,
    config: Mapping[str, Any],
    trials: Iterable[tuple[Proposal, Measurement]],
    notes: Iterable[tuple[str, int, Mapping[str, Any]]] = (),
    strategy: str = "progressive",
) -> Path:
    """A run's folder of these trials, numbered from 0."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with TrialStore(folder / "trials.sqlite", write=True) as store:
        for number, (proposal, measurement) in enumerate(trials):
            store.propose(number, [proposal], "test", strategy)
            if store.measurement(proposal.key("test")) is None:
                store.add(proposal.key("test"), measurement)
        for name, at, values in notes:
            store.note(name, at, values)
    return folder


def make_run(
    folder: Path,
    sizes: list[int],
    *,
    blocks: int = 3,
    failures: float = 0.1,
    finished: int | None = None,
    **more: Any,
) -> Path:
    """A progressive run of ``sizes[i]`` children at level i + 1; the first ``finished`` levels are done."""
    generator = random.Random(f"{sizes} {failures}")
    config = {
        "blocks": blocks,
        "operations": list(OPERATIONS),
        "data": "digits",
        "fused": True,
        "limit": None,
    }
    trials, notes = list[tuple[Proposal, Measurement]](), list[tuple[str, int, dict[str, Any]]]()
    for level, size in enumerate(sizes, start=1):
        after = {}
        for text in distinct_cells(level, size, generator):
            number = len(trials)
            note = {"level": level} | ({} if level == 1 else {"predicted": generator.random()})
            failed = generator.random() < failures
            trials.append(
                (Proposal(Cell.parse(text), 2, note=note), random_measurement(number, failed, generator))
            )
            after[str(number)] = generator.random()
        if finished is None or level <= finished:
            rho = None if level == 1 else generator.uniform(-1, 1)
            values: dict[str, Any] = {
                "level": level,
                "levels": blocks,
                "candidates": 97 * level,
                "children": size,
            }
            values |= {"rho_before": rho, "rho_after": generator.random(), "surrogate_seconds": 1.5}
            notes.append(("level", len(trials), values | {"predicted_after": after}))
            notes.append(("drained", len(trials), {"workers": 4, "waited": 2.5}))
    return write_run(folder, config | more, trials, notes)


class Page(HTMLParser):
    """What the tests look at: tags with attributes, text by section, table rows, balance of tags."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.text = ""
        self.scripts: list[str] = []
        self._section = "header"
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "section":
            self._section = attributes["id"]
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        if "script" in self._open:
            self.scripts[-1] += data
            return
        self.text += data
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self._open and {"td", "th"} & set(self._open):
            self.rows[self._section][-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def body_rows(self, section: str) -> list[list[str]]:
        return self.rows[section][1:]

    @property
    def table(self) -> dict[str, Any]:
        """The data of the table of all trials."""
        data: dict[str, Any] = json.loads(self.scripts[0])
        return data


def read_page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))
