"""MLflow: a run of the server or store that MLflow's own environment variables name."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from pnas_fast.tracking.messages import Begin, Finish, Point

EXPERIMENT = "pnas_fast"
"""Where ``MLFLOW_EXPERIMENT_NAME`` and ``MLFLOW_EXPERIMENT_ID`` name none."""

_UNFIT = re.compile(r"[^\w\-. /]", re.ASCII)
_MOST = 100
"""Parameters, or points, in one request: MLflow takes 100 of the former and 1,000 values."""

_LONGEST = 500
"""Characters of a parameter or tag that every version of MLflow takes."""

_STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Mlflow:
    """See `Tool`."""

    def begin(self, begin: Begin) -> str:
        """See `Tool`; the run's id."""
        self._client = MlflowClient()
        if begin.known:
            self._run = begin.known
            self._client.update_run(self._run, status="RUNNING")
            return self._run
        self._run = self._client.create_run(self._experiment(), run_name=begin.name).info.run_id
        parameters = [Param(_name(name), _text(value)) for name, value in begin.parameters.items()]
        for first in range(0, len(parameters), _MOST):
            self._client.log_batch(self._run, params=parameters[first : first + _MOST])
        return self._run

    def _experiment(self) -> str:
        if own := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return own
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def log(self, points: Sequence[Point]) -> None:
        """See `Tool`; a text is a tag that the next one of its name replaces."""
        now = int(1000 * time.time())
        metrics = [
            Metric(_name(name), value, now, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        texts = {_name(name): _text(text) for point in points for name, text in point.texts.items()}
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._run, metrics=metrics[first : first + _MOST])
        self._client.log_batch(self._run, tags=[RunTag(name, text) for name, text in texts.items()])

    def finish(self, finish: Finish) -> None:
        """See `Tool`."""
        for name in finish.files:
            self._client.log_artifact(self._run, name)
        for name in finish.figures:
            self._client.log_artifact(self._run, name, "figures")
        self._client.set_terminated(self._run, _STATUS[finish.ending])


def _name(name: str) -> str:
    """A name that MLflow takes."""
    return _UNFIT.sub("_", name)[:_MOST]


def _text(value: object) -> str:
    return (",".join(value) if isinstance(value, list) else str(value))[:_LONGEST]
