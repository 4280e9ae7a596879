"""The evaluator that calls a user's own function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pnas_fast.data import DataSet
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.child import build_child
from pnas_fast.evaluation.guard import ELSEWHERE, checked_number, load_object
from pnas_fast.evaluation.reasons import TrialError
from pnas_fast.evaluation.train import plain_settings, training_identity
from pnas_fast.network import ChildNetwork
from pnas_fast.protocols import Context, EvaluatorError, Measurement, Proposal, Spec
from pnas_fast.space import Cell
from pnas_fast.space.operations import effort

NAME = f"{__name__}:Function"

LAYOUT = ("repeats", "filters", "drop_path", "backend")
"""Settings that a function may change for the network it asks for."""


@dataclass(frozen=True, slots=True)
class UserContext:
    """What a user's function is told besides the network and the data.

    ``seed`` is the child's, ``epochs`` the budget, ``replica`` counts repetitions with other seeds,
    ``device`` is where the data lie, and ``report`` may be called with the images seen so far.
    """

    cell: Cell
    seed: int
    epochs: int
    replica: int
    device: str
    report: Callable[[int], None]


Build = Callable[..., ChildNetwork]
UserFunction = Callable[[Build, DataSet, UserContext], Any]


def function_spec(name: str, settings: TrainingSettings, data: str, version: str | None = None) -> Spec:
    """`Function` with settings, which may be a configuration with more fields, and the data's identity."""
    return Spec(
        NAME,
        {"function": name, "settings": plain_settings(settings), "data": data, "version": version},
    )


def name_of(function: UserFunction) -> str:
    """``package.module:name``, by which worker processes find a function.

    Raises:
        EvaluatorError: it has no such name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found = getattr(sys.modules.get(str(module)), str(name), None)
    if found is not function:
        raise EvaluatorError(
            f"evaluator {name or function!r} of {module or 'no module'}: allowed is a function of a module's "
            f"own, neither a lambda nor one inside another; {ELSEWHERE}"
        )
    if module == "__main__":
        raise EvaluatorError(f"evaluator {name} of a notebook or of the program itself: {ELSEWHERE}")
    return f"{module}:{name}"


class Function:
    """Calls ``f(build, data, context) -> float | dict[str, float]``: an accuracy, or values with one.

    ``build()`` gives the untrained network of the proposed cell, seeded, on the data's device;
    ``build(filters=16)`` one of another size (see `LAYOUT`). ``data`` is the `DataSet`, ``context`` a
    `UserContext`. Whatever the function raises, and whatever it returns that is no finite number, is one
    failed trial; an OSError stops the run.

    Args:
        function: ``package.module:name``, found in worker processes as it is here.
        settings: the fields of `TrainingSettings`, resolved, which ``build`` needs.
        data: the identity of the data set.
        version: to be changed with what the function computes; by default its attribute ``version``, or "".

    Raises:
        ConfigError: a setting outside its limits.
        EvaluatorError: there is no such function.
    """

    def __init__(
        self, function: str, settings: Mapping[str, Any], data: str, version: str | None = None
    ) -> None:
        self._function: UserFunction = load_object(function, "function")
        if not callable(self._function):
            raise EvaluatorError(f"function {function}: it is {self._function!r}, which cannot be called")
        found = getattr(self._function, "version", "")
        self._name, self._version = function, str(found) if version is None else version
        self._settings = TrainingSettings(**settings)
        self._data = data

    @property
    def identity(self) -> str:
        """See `pnas_fast.protocols.Evaluator`."""
        return training_identity("function", self._settings, self._data, f"{self._name} {self._version}")

    def effort(self, cell: Cell) -> float:
        """See `pnas_fast.protocols.Evaluator`."""
        return effort(cell)

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        """See `pnas_fast.protocols.Evaluator`."""
        cell = proposal.cell.canonical()

        def build(**layout: Any) -> ChildNetwork:
            unknown = sorted(set(layout) - set(LAYOUT))
            if unknown:
                raise TypeError(f"build: unknown {', '.join(unknown)}, allowed are {', '.join(LAYOUT)}")
            return build_child(cell, replace(self._settings, **layout), context.data, context.seed)

        told = UserContext(
            cell, context.seed, proposal.budget, proposal.replica, context.device, context.report
        )
        return Measurement("done", _values(self._function(build, context.data, told)))


def _values(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping):
        if isinstance(found, bool | str | bytes) or not hasattr(found, "__float__"):
            what = "text" if isinstance(found, str) else "nothing" if found is None else type(found).__name__
            raise TrialError(f"returned {what}, allowed are a number and a dict of numbers")
        return {"accuracy": checked_number("accuracy", found)}
    wrong = [name for name in found if not isinstance(name, str) or not name]
    if wrong:
        raise TrialError(f"returned a dict with the key {wrong[0]!r}, allowed is text")
    if "accuracy" not in found:
        raise TrialError(f"returned no accuracy, only {', '.join(found) or 'an empty dict'}")
    return {name: checked_number(name, value) for name, value in found.items()}
