"""Functions as users write them to evaluate cells with."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch

from pnas_fast.data import DataSet
from pnas_fast.evaluation.function import Build, UserContext
from pnas_fast.network import Genotype


def counts(build: Build, data: DataSet, context: UserContext) -> dict[str, Any]:
    network, wider = build(), build(filters=8)
    assert network.genotype == Genotype.of(context.cell)
    first = next(network.parameters()).detach()
    context.report(len(data.train_labels))
    return {
        "accuracy": 0.5, "parameters": network.parameters_count, "wider": wider.parameters_count,
        "epochs": context.epochs, "seed": context.seed, "replica": context.replica, "first": first.sum(),
    }  # fmt: skip


counts.version = "3"  # type: ignore[attr-defined]


def returns(build: Build, data: DataSet, context: UserContext) -> Any:
    return RETURNED[context.seed]


RETURNED: list[Any] = [
    0.25, 1, torch.tensor(0.5), {"accuracy": 0.75, "latency_ms": 3},
    float("nan"), "0.5", None, [0.5], True, 1.5, {"loss": 1.0}, {}, {"accuracy": 0.5, "sizes": [1, 2]},
    {"accuracy": 0.5, "note": "good"}, {"accuracy": 0.5, 3: 1.0}, {"accuracy": float("inf")},
    torch.ones(2), 10**400, 1j, {"accuracy": None},
]  # fmt: skip

NOT_A_FUNCTION = 3


def needs_another_layout(build: Build, data: DataSet, context: UserContext) -> float:
    build(**{"depth": 3})
    return 0.5


def diverges(build: Build, data: DataSet, context: UserContext) -> float:
    raise ZeroDivisionError("loss is 0\nmore")


def of_many_kinds(build: Build, data: DataSet, context: UserContext) -> Any:
    """By the cell: a number, a dictionary, NaN, text, or an error."""
    kind = sum(map(ord, str(context.cell))) % 5
    if kind == 4:
        raise ValueError("no such luck")
    return [0.25, {"accuracy": 0.5, "latency_ms": 3.0}, float("nan"), "good"][kind]


def asks_once(build: Build, data: DataSet, context: UserContext) -> float:
    """Asks the process whose number the file ``driver`` holds to end, and waits for that; once."""
    asked = Path("driver")
    if asked.exists():
        driver = int(asked.read_text())
        asked.unlink()
        os.kill(driver, signal.SIGTERM)
        threading.Event().wait()
    return 0.5
