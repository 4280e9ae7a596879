"""The trials of a search as a study of Optuna, for its dashboard and its analyses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from pnas_fast.cli.options import ConfigError
from pnas_fast.export.errors import ExportError
from pnas_fast.foreign import printable, reason
from pnas_fast.protocols import MachineError, Trial
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.record import RunRecord
from pnas_fast.space import CELL_INPUTS, OPERATIONS

RUN = "pnas_fast"
"""The attribute of a study that says whose trials it holds."""

_KEY = "pnas_fast"
"""The attribute of a trial that no other trial of its run has."""

_SAME = ("strategy", "evaluator", "operations", "data", "seed")
"""What stays the same when a run goes further; of data, and tables, it is the kind: they may be moved."""


def export_study(folder: Path, url: str, name: str | None = None) -> str:
    """Add to a study the trials of a search that it lacks; what was done, in a line for people.

    A trial's parameters are ``block1_input1``, ``block1_operation1``, …, all categorical, its value is the
    accuracy, its attributes are the rest. Final trainings, which are of cells that were tried, are left out.
    A child that was trained anew since is a trial of its own.

    Args:
        folder: of the search.
        url: of Optuna's storage, as SQLAlchemy writes it.
        name: of the study; that of the folder by default.

    Raises:
        ExportError: there is no such run, the storage cannot be used, or the study holds other trials.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        record = RunRecord.load(folder)
    except (ConfigError, MachineError, RunError, StoreError) as error:
        raise ExportError(str(error)) from error
    name = name or folder.resolve().name
    try:
        study = optuna.create_study(storage=url, study_name=name, direction="maximize", load_if_exists=True)
        added = _add(study, record)
    except ExportError:
        raise
    except Exception as error:  # whatever databases and their drivers raise
        raise ExportError(f"--study {_shown(url)}: cannot be used ({reason(error)})") from error
    trials = f"{added:,} of {len(record.trials):,} trials"
    return printable(f"{trials} were added to the study {name} in {_shown(url)}")


def _add(study: optuna.Study, record: RunRecord) -> int:
    """Add the trials that a study lacks; how many these are."""
    own = {name: _kind(record.config.get(name)) for name in _SAME}
    theirs = study.user_attrs.get(RUN)
    known = {trial.user_attrs.get(_KEY) for trial in study.get_trials(deepcopy=False)}
    if theirs != own and (theirs is not None or known):
        raise ExportError(
            f"--study-name {study.study_name}: holds trials of something else than {record.folder}; "
            "choose another name"
        )
    study.set_user_attr(RUN, own)
    operations = _operations(record)
    added = 0
    for trial in record.trials:
        key = _key(trial)
        if key not in known:
            known.add(key)
            study.add_trial(_frozen(trial, key, operations))
            added += 1
    if record.best is not None:
        study.set_user_attr("best_cell", str(record.best.cell))
    return added


def _kind(value: Any) -> Any:
    return value.partition(":")[0] if isinstance(value, str) else value


def _shown(url: str) -> str:
    """A storage's name without a password."""
    try:
        return str(make_url(url).render_as_string(hide_password=True))
    except ArgumentError:
        return "the storage"


def _operations(record: RunRecord) -> tuple[str, ...]:
    """Those that the run chooses from, which Optuna wants to be the same for all its trials."""
    own = record.config.get("operations")
    return tuple(map(str, own)) if isinstance(own, list) else OPERATIONS


def _key(trial: Trial) -> str:
    values = "failed" if not trial.done else repr(trial.accuracy)
    return " ".join([str(trial.number), *map(str, trial.proposal.key("")), values])


def _frozen(trial: Trial, key: str, operations: tuple[str, ...]) -> FrozenTrial:
    """A trial of Optuna's.

    Its dates are those of the export, for no others are known; how long it took is true.
    """
    now = datetime.now()
    seconds = trial.measurement.values.get("seconds", 0.0)
    parameters, distributions = _parameters(trial, operations)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.COMPLETE if trial.done else TrialState.FAIL,
        value=trial.accuracy if trial.done else None,
        datetime_start=now - timedelta(seconds=seconds),
        datetime_complete=now,
        params=parameters,
        distributions=distributions,
        user_attrs=_attributes(trial, key),
        system_attrs={},
        intermediate_values={},
    )


def _parameters(
    trial: Trial, operations: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    parameters, distributions = dict[str, Any](), dict[str, BaseDistribution]()
    for index, block in enumerate(trial.cell.blocks):
        for side, (source, operation) in enumerate(block.sides, start=1):
            for what, value, choices in (
                ("input", source, tuple(range(CELL_INPUTS + index))),
                ("operation", operation, operations),
            ):
                name = f"block{index + 1}_{what}{side}"
                parameters[name], distributions[name] = value, CategoricalDistribution(choices)
    return parameters, distributions


def _attributes(trial: Trial, key: str) -> Mapping[str, Any]:
    proposal, measurement = trial.proposal, trial.measurement
    attributes: dict[str, Any] = {
        _KEY: key,
        "trial": trial.number,
        "cell": str(trial.cell),
        "epochs": proposal.budget,
        "replica": proposal.replica,
        **{name: value for name, value in measurement.values.items() if name != "accuracy"},
        **{f"note_{name}": value for name, value in proposal.note.items()},
    }
    if measurement.error is not None:
        attributes["error"] = measurement.error
    return attributes
