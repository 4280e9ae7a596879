"""Nothing that is chosen hears of test images: other labels of theirs change neither a trial nor a choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pnas_fast import SearchConfig, run_search
from pnas_fast.data import DataSet, as_source
from pnas_fast.data.parts import Part, assemble
from pnas_fast.runs.folder import RunError
from pnas_fast.search.result import SearchResult


def made() -> DataSet:
    """Images whose class is their brightness, more or less."""
    random = np.random.default_rng(4)
    labels = np.arange(300) % 3
    levels = 40 * labels[:, None, None, None] + random.integers(0, 130, (300, 8, 8, 1))
    images = levels.astype(np.uint8)
    parts = {"train": Part(images[:200], labels[:200]), "test": Part(images[200:], labels[200:])}
    return assemble("made up", parts)


CONFIG = SearchConfig(
    strategy="random", budget=3, blocks=1, finalists=2, final_replicas=1, epochs=1, batch=32, filters=2,
    device="cpu", workers=1, test_children=True, operations=("identity", "max_pool3x3", "sep3x3"),
)  # fmt: skip


def searched(data: DataSet, out: Path) -> SearchResult:
    return run_search(CONFIG, data=as_source(data), out=out, progress=False)


@pytest.mark.slow
def test_permuted_test_labels_change_no_trial_and_no_choice(tmp_path: Path) -> None:
    data = made()
    assert data.test_labels is not None
    permuted = replace(data, test_labels=(data.test_labels + 1) % 3)
    one, other = searched(data, tmp_path / "one"), searched(permuted, tmp_path / "other")
    names = ("accuracy", "validation_loss", "loss")
    found = [
        [(str(trial.cell), *(trial.value(name) for name in names)) for trial in result.record.trials]
        for result in (one, other)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert (one.best, one.accuracy) == (other.best, other.accuracy)
    tests = [[trial.value("test_accuracy") for trial in result.record.trials] for result in (one, other)]
    assert tests[0] != tests[1]
    with pytest.raises(RunError, match="its test images or their labels are others than those it began with"):
        searched(permuted, tmp_path / "one")
