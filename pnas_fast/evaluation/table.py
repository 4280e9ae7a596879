"""The evaluator that looks measurements up in a file, and the file's writer."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from pnas_fast.evaluation.guard import checked_number
from pnas_fast.evaluation.reasons import TrialError
from pnas_fast.files import replacing
from pnas_fast.protocols import Context, EvaluatorError, Measurement, Proposal, Spec, Trial
from pnas_fast.space import Cell, CellError

NAME = f"{__name__}:Table"

COLUMNS = ("cell", "budget", "replica", "status", "error")
"""That every file has; all others are values."""

_Place = tuple[str, int, int]


def table_spec(file: Path, draws: bool = False) -> Spec:
    """`Table` of a file."""
    return Spec(NAME, {"file": str(file.resolve()), "draws": draws})


class Table:
    """Answers with what a file recorded for a cell, a budget and a replica.

    Args:
        file: a CSV file as `write_table` writes it, with gzip where its name ends in ``.gz``.
        draws: whether the replica is drawn, by the child's seed, among those in the file: so searches of
            other seeds see the noise anew. Else it is the one that is asked for.

    Raises:
        EvaluatorError: it is none; the message names file, line and what is allowed.
    """

    def __init__(self, file: str, draws: bool = False) -> None:
        self._file, self._draws = file, draws
        self._content = _parsed(file, _read(Path(file)))

    @property
    def identity(self) -> str:
        """Digest of what is in the file, whatever it is called and however it is packed."""
        kind = "table, drawn" if self._draws else "table"
        return hashlib.sha256(f"{kind} {self._content.digest}".encode()).hexdigest()

    def replicas(self, budget: int) -> dict[str, list[Measurement]]:
        """All measurements after so many epochs, by the canonical text of their cell, in order of replica."""
        return {cell: found for (cell, epochs), found in self._content.replicas.items() if epochs == budget}

    def effort(self, cell: Cell) -> float:
        """None takes longer than another."""
        return 0.0

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        """Look it up.

        Raises:
            EvaluatorError: the file lacks it.
        """
        cell, budget, replica = place = _place(proposal)
        if self._draws and (among := self._content.replicas.get((cell, budget))):
            return among[context.seed % len(among)]
        found = self._content.measurements.get(place)
        if found is None:
            raise EvaluatorError(
                f"{self._file}: no measurement of {cell} after {budget} epochs, replica {replica}"
            )
        return found


def write_table(path: Path, trials: Iterable[Trial]) -> None:
    """Write trials as a file that `Table` answers from; of those of one place the first is taken."""
    measured: dict[_Place, Measurement] = {}
    for trial in trials:
        measured.setdefault(_place(trial.proposal), trial.measurement)
    names = sorted({name for measurement in measured.values() for name in measurement.values})
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *names])
    for place, measurement in measured.items():
        values = [measurement.values.get(name, "") for name in names]
        rows.writerow([*place, measurement.status, measurement.error or "", *values])
    content = text.getvalue().encode()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_table(path: Path) -> list[Trial]:
    """What a table's file holds, as `write_table` takes it: a trial a row, numbered from 0.

    Raises:
        EvaluatorError: it is none; the message names file, line and what is allowed.
    """
    measurements = _parsed(str(path), _read(path)).measurements
    return [
        Trial(number, Proposal(Cell.parse(cell), budget, replica), measurement)
        for number, ((cell, budget, replica), measurement) in enumerate(measurements.items())
    ]


def _place(proposal: Proposal) -> _Place:
    return str(proposal.cell.canonical()), proposal.budget, proposal.replica


@dataclass(frozen=True, slots=True)
class _Content:
    """A file's measurements, and the same by cell and budget, in order of replica."""

    digest: str
    measurements: dict[_Place, Measurement]
    replicas: dict[tuple[str, int], list[Measurement]]


@lru_cache(maxsize=2)
def _parsed(file: str, content: bytes) -> _Content:
    """What is in a file, which the searches of a process parse once."""
    measurements = _parse(file, content)
    replicas: dict[tuple[str, int], list[Measurement]] = {}
    for cell, budget, replica in sorted(measurements):
        replicas.setdefault((cell, budget), []).append(measurements[cell, budget, replica])
    return _Content(hashlib.sha256(content).hexdigest(), measurements, replicas)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise EvaluatorError(f"{path}: cannot be read ({error})") from error


def _parse(file: str, content: bytes) -> dict[_Place, Measurement]:
    measured: dict[_Place, Measurement] = {}
    canonical = cache(lambda text: str(Cell.parse(text).canonical()))
    line = 1
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(rows, [])
        if tuple(header[: len(COLUMNS)]) != COLUMNS or len(set(header)) < len(header):
            raise TrialError(
                f"columns are {','.join(header)}, allowed are {','.join(COLUMNS)} and values' names"
            )
        for row in rows:
            line = rows.line_num
            place, measurement = _row(row, header, canonical)
            if measured.setdefault(place, measurement) != measurement:
                raise TrialError("another measurement of the same cell, budget and replica is above")
    except (ValueError, CellError, TrialError, csv.Error) as error:
        raise EvaluatorError(f"{file}, line {line}: {error}") from error
    return measured


def _row(row: list[str], header: list[str], canonical: Callable[[str], str]) -> tuple[_Place, Measurement]:
    if len(row) != len(header):
        raise TrialError(f"{len(row)} columns, allowed are {len(header)}")
    cell, budget, replica, status, error, *texts = row
    if status not in ("done", "failed") or (status == "failed") != bool(error):
        raise TrialError(f"status is {status!r} with error {error!r}, allowed are done, and failed with one")
    values = {
        name: checked_number(name, _number(text))
        for name, text in zip(header[len(COLUMNS) :], texts, strict=True)
        if text
    }
    place = canonical(cell), int(budget), int(replica)
    return place, Measurement("failed" if error else "done", values, error or None)


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)
