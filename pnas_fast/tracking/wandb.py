"""Weights & Biases: a run of the project that its own environment variables name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import wandb

from pnas_fast.tracking.messages import Begin, Finish, Point

PROJECT = "pnas_fast"
"""Where ``WANDB_PROJECT`` names none."""


class Wandb:
    """See `Tool`."""

    def begin(self, begin: Begin) -> str:
        """See `Tool`; the run's id, which is made here so that it is the same offline."""
        known = begin.known or f"{begin.identity}-{secrets.token_hex(4)}"
        # Its files go into a folder of this one that is named wandb.
        folder = os.environ.get("WANDB_DIR") or Path(begin.folder).parent
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=known,
            name=begin.name,
            dir=folder,
            config=begin.parameters,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        # By a value of their own, points may come in any order: W&B's own steps only ever grow.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return known

    def log(self, points: Sequence[Point]) -> None:
        """See `Tool`."""
        for point in points:
            self._run.log({"step": point.step, **point.values, **point.texts})

    def finish(self, finish: Finish) -> None:
        """See `Tool`; files and figures are one artefact, figures are shown as well."""
        if finish.figures:
            images = {f"figures/{Path(name).stem}": wandb.Image(name) for name in finish.figures}
            self._run.log({"step": finish.step, **images})
        if finish.files:
            artefact = wandb.Artifact(f"run-{self._run.id}", type="run")
            for name in finish.files:
                artefact.add_file(name)
            for name in finish.figures:
                artefact.add_file(name, f"figures/{Path(name).name}")
            self._run.log_artifact(artefact)
        self._run.finish(exit_code=int(finish.ending != "done"))
