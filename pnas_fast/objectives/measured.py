"""Objectives that are read off a trial's measurement."""

from __future__ import annotations

from pnas_fast.protocols import Trial


class _Measured:
    """The measured value of the objective's name."""

    name: str
    unit = ""
    maximise = False

    def of(self, trial: Trial) -> float:
        """Its value; NaN where the trial failed or it was not measured."""
        return trial.value(self.name) if trial.done else float("nan")


class Accuracy(_Measured):
    """The validation accuracy in [0, 1]."""

    name = "accuracy"
    maximise = True


class Parameters(_Measured):
    """The number of the child's parameters."""

    name = "parameters"


class MultiplyAdds(_Measured):
    """The child's multiply-adds for one image."""

    name = "multiply_adds"
