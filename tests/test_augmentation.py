"""Augmentation and class weights as a search is told them: what it says, what it refuses, what goes on."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pnas_fast import SearchConfig, run_search
from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataError, as_source, digest, load
from pnas_fast.data.augmentation import augmented
from pnas_fast.engine import TrainingSettings, settings_source
from pnas_fast.engine.settings import LATER
from pnas_fast.report.page import write_report
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.images import RunImages, images_of
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.search.command import main
from pnas_fast.search.result import SearchResult
from report_runs import read_page

TINY = SearchConfig(
    strategy="random", budget=3, blocks=1, operations=("identity", "max_pool3x3"), filters=4, epochs=1,
    batch=32, device="cpu", backend="eager", workers=1, finalists=1, final_replicas=2,
)  # fmt: skip
ASKED = replace(TINY, flip="yes", crop_padding=2, cutout=3, class_weights="balanced")


def unbalanced(path: Path) -> str:
    """Images of three classes, of which one is rare, in a file; its name as data."""
    random, arrays = np.random.default_rng(4), dict[str, Any]()
    for part, counts in (("train", (90, 30, 6)), ("val", (20, 8, 4)), ("test", (12, 12, 12))):
        labels = np.repeat(np.arange(3), counts)
        levels = 70 * labels[:, None, None] + random.integers(0, 60, (len(labels), 8, 8))
        arrays |= {f"{part}_images": levels.astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return unbalanced(tmp_path_factory.mktemp("data") / "made.npz")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: str) -> SearchResult:
    folder = tmp_path_factory.mktemp("runs") / "asked"
    return run_search(replace(ASKED, data=data), out=folder, progress=False)


def test_a_source_is_augmented_as_it_says_or_as_is_asked() -> None:
    source = settings_source(TrainingSettings(data="fashion"))
    own = source.open()
    assert (own.flip, own.crop_padding) == (True, 1)
    assert augmented(source) is source
    same = augmented(source, "yes", 1)
    assert same.identity() == source.identity()
    other = settings_source(TrainingSettings(data="fashion", flip="no", crop_padding=3))
    changed = other.open()
    assert (changed.flip, changed.crop_padding) == (False, 3)
    assert other.identity() == digest(replace(own, flip=False, crop_padding=3)) != source.identity()
    assert (other.name, other.describe()) == (source.name, source.describe())
    assert changed.train_images is own.train_images or (changed.train_images == own.train_images).all()


def test_crops_that_could_show_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="--crop-padding 8 on images of 8×8, allowed is 0 to 7"):
        settings_source(TrainingSettings(crop_padding=8)).open()
    assert settings_source(TrainingSettings(crop_padding=7)).open().crop_padding == 7
    with pytest.raises(ConfigError, match="crop_padding is -2, allowed is -1 to"):
        TrainingSettings(crop_padding=-2)


@pytest.mark.parametrize("cutout", [8, 100])
def test_cutout_of_a_whole_image_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cutout: int
) -> None:
    folder = tmp_path / "run"
    for more in ([], ["--plan"]):
        assert main(["--preset", "quick", "--cutout", str(cutout), "--out", str(folder), *more]) == 2
        assert f"cutout is {cutout} on images of 8×8, allowed is 0 to 7" in capsys.readouterr().err
    assert not folder.exists()


def test_a_run_tells_what_its_children_are_trained_on(run: SearchResult, data: str) -> None:
    images = run.record.images
    assert images == RunImages(
        ("0", "1", "2"), (1, 8, 8), (90, 30, 6), (20, 8, 4), (12, 12, 12), crop_padding=2, flip=True
    )
    assert images.is_unbalanced
    assert not RunImages.of(load("digits")).is_unbalanced
    found = str(run)
    assert "balanced" in found
    choice = run.choice
    assert choice is not None
    mean = np.mean([choice.chosen.mean(f"test_recall_{number}") for number in range(3)])
    assert choice.chosen.mean("test_balanced_accuracy") == pytest.approx(mean)


def test_the_page_says_how_images_are_augmented_and_how_each_class_is_recognised(run: SearchResult) -> None:
    write_report(run.folder)
    page = read_page(run.folder)
    assert "images" in page.sections
    assert "crops move by 2, mirrored at random, cutout of 3" in page.text
    assert "weighted, so that all classes count alike" in page.text
    assert "test recall" in page.text
    assert "balanced_accuracy" in page.text
    rows = page.body_rows("images")
    assert sorted(row[0] for row in rows) == ["0", "1", "2"]
    assert [row[1:4] for row in sorted(rows)] == [["90", "20", "12"], ["30", "8", "12"], ["6", "4", "12"]]


def test_a_run_goes_on_with_the_augmentation_that_it_began_with(run: SearchResult, data: str) -> None:
    again = run_search(replace(ASKED, data=data), out=run.folder, progress=False)
    assert again.trials.seconds.tolist() == run.trials.seconds.tolist()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"flip": "no"}, r"were trained on images augmented otherwise \(--flip yes -> no\)"),
        ({"crop_padding": 1}, r"augmented otherwise \(--crop-padding 2 -> 1\)"),
        ({"cutout": 0}, "--cutout 3 -> 0"),
        ({"class_weights": "none"}, "--class-weights balanced -> none"),
    ]
    for change, message in wrong:
        with pytest.raises(RunError, match=message):
            run_search(replace(ASKED, data=data, **change), out=run.folder, progress=False)


def test_a_run_of_before_there_were_such_options_goes_on(tmp_path: Path, data: str) -> None:
    folder, config = tmp_path / "run", replace(TINY, data=data)
    first = run_search(config, out=folder, progress=False)
    old = {name: value for name, value in first.config.values().items() if name not in LATER}
    (folder / "config.json").write_text(json.dumps(old))
    with closing(TrialStore(folder / "trials.sqlite", write=True)) as store:
        store.set_fact("config", json.dumps(old, sort_keys=True))
        store._write("DELETE FROM run WHERE name = 'images'", [])
    assert RunRecord.load(folder).images is None
    write_report(folder)
    assert "images" not in read_page(folder).sections
    again = run_search(config, out=folder, progress=False)
    assert again.trials.seconds.tolist() == first.trials.seconds.tolist()
    assert again.record.finals == first.record.finals
    assert again.record.images == first.record.images
    # What the data set does anyway is no change.
    same = replace(config, flip="no", crop_padding=1)
    assert run_search(same, out=folder, progress=False).record.finals == first.record.finals


def test_arrays_of_a_program_are_augmented_as_is_asked(tmp_path: Path) -> None:
    source = as_source(load("digits").subset(64))
    found = run_search(
        replace(TINY, flip="yes", finalists=0), data=source, out=tmp_path / "a", progress=False
    )
    assert found.record.images is not None
    assert found.record.images.flip


def test_images_of_a_store_that_are_none_are_one_line(tmp_path: Path) -> None:
    with closing(TrialStore(tmp_path / "trials.sqlite", write=True)) as store:
        assert images_of(store, "here") is None
        store.set_fact("images", '{"flip": 3}')
        with pytest.raises(StoreError, match="here: images: "):
            images_of(store, "here")
