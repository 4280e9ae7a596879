"""Evaluators: made by their names, and asked so that whatever they do is one measurement."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pnas_fast.data import DataError
from pnas_fast.engine.streams import to_end
from pnas_fast.evaluation.reasons import TrialError, logged_reason, reason
from pnas_fast.protocols import (
    Context,
    Evaluator,
    EvaluatorError,
    Measurement,
    Measuring,
    Proposal,
    Spec,
    Stepped,
)

ELSEWHERE = (
    "worker processes do not see what a notebook or a program itself defines: put it into a module that can "
    "be imported, or evaluate in this process (pnas_fast.executors.inline.InlineExecutor)"
)


def make_evaluator(spec: Spec) -> Evaluator:
    """The evaluator that a spec names.

    Raises:
        EvaluatorError: there is none of that name, or it does not take these settings.
    """
    make = load_object(spec.name, "evaluator")
    try:
        evaluator: Evaluator = make(**spec.settings)
    except (TypeError, ValueError) as error:
        raise EvaluatorError(f"evaluator {spec.name} cannot be made: {error}") from error
    return evaluator


def load_object(name: str, what: str) -> Any:
    """What ``package.module:name`` names.

    Raises:
        EvaluatorError: nothing; the message calls it a ``what``.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute.isidentifier()):
        raise EvaluatorError(
            f"{what} {name!r}: allowed is package.module:name, with a name of the module's own"
        )
    hint = f"; {ELSEWHERE}" if module == "__main__" else ""
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the module does while it is imported
        raise EvaluatorError(f"{what} {name}: {module} cannot be imported ({reason(error)}){hint}") from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise EvaluatorError(f"{what} {name}: {module} has no {attribute}{hint}") from error


def measure(evaluator: Evaluator, proposal: Proposal, context: Context) -> Measurement:
    """Evaluate a cell, and be sure of what comes back: finite numbers, or one line that says why not.

    A measurement that failed for want of memory says so (`is_out_of_memory`); it should be tried again alone.

    Raises:
        OSError: the machine is at fault.
        EvaluatorError: the evaluator cannot answer at all, or its data cannot be read.
    """
    return to_end(measuring(evaluator, proposal, context))


def measuring(evaluator: Evaluator, proposal: Proposal, context: Context) -> Measuring:
    """`measure` that stops wherever the evaluator does; one that cannot stop does all of it at once."""
    try:
        if isinstance(evaluator, Stepped):
            found = yield from evaluator.measuring(proposal, context)
        else:
            found = evaluator.measure(proposal, context)
        if not isinstance(found, Measurement):
            raise TrialError(f"the evaluator returned {_kind(found)}, allowed is a Measurement")
        checked = replace(
            found,
            values={name: checked_number(name, value) for name, value in found.values.items()},
            curves={name: _checked_curve(name, curve) for name, curve in found.curves.items()},
            device=found.device or context.device,
        )
        if checked.done and not 0 <= checked.values.get("accuracy", 0.0) <= 1:
            raise TrialError(f"accuracy is {checked.values['accuracy']:g}, allowed are 0 to 1")
        if not checked.done and not checked.error:
            raise TrialError("the evaluator gave no reason")
    except (OSError, EvaluatorError):
        raise
    except DataError as error:  # of streamed images: what holds for this cell holds for all
        raise EvaluatorError(str(error)) from error
    except (Exception, SystemExit) as error:  # whatever a cell does, the run goes on without it
        return Measurement("failed", {}, logged_reason(error), device=context.device)
    return checked


def checked_number(name: str, value: Any) -> float:
    """A measured value, an int or a float that is finite.

    Raises:
        TrialError: it is neither, nor an array or tensor of one such number.
    """
    if isinstance(value, bool | str | bytes | Mapping) or not hasattr(value, "__float__"):
        raise TrialError(f"{name} is {_kind(value)}, allowed is a finite number")
    try:
        number = value if type(value) is int else float(value)
        finite = math.isfinite(number)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TrialError(f"{name} is {_kind(value)}, allowed is a finite number") from error
    if not finite:
        raise TrialError(f"{name} is {number}")
    return number


def _checked_curve(name: str, curve: Any) -> tuple[float, ...]:
    if not isinstance(curve, tuple | list):
        raise TrialError(f"curve {name} is {_kind(curve)}, allowed are finite numbers, one an epoch")
    return tuple(checked_number(f"curve {name}", value) for value in curve)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, str):
        return "text"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeio" else f"a {name}"
