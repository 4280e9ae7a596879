"""What a store remembers of its run: an edited configuration, other data, another machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pnas_fast import SearchConfig
from pnas_fast.protocols import Measurement, Proposal
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.history import is_finished, mark_finished, settle, settle_tests
from pnas_fast.runs.record import RunRecord
from pnas_fast.runs.store import TrialStore
from pnas_fast.space import Cell

CONFIG = SearchConfig(blocks=2, beam=4, device="cpu", backend="eager")
ASKED = [Proposal(Cell.parse("0:identity+1:identity"), 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with TrialStore(tmp_path / "trials.sqlite", write=True) as store:
        assert settle(tmp_path, CONFIG, "data", store) == []
        store.propose(0, ASKED, "e", "progressive")
        store.add(ASKED[0].key("e"), Measurement("done", {"accuracy": 0.5}))
    return tmp_path


def settled(folder: Path, config: SearchConfig, data: str = "data") -> list[str]:
    with TrialStore(folder / "trials.sqlite", write=True) as store:
        return settle(folder, config, data, store)


def test_test_images_stay_those_it_began_with(folder: Path) -> None:
    with TrialStore(folder / "trials.sqlite", write=True) as store:
        for tests in ("", "tests", "", "tests"):
            settle_tests(folder, tests, store)
        with pytest.raises(RunError, match="its test images or their labels are others than those it began"):
            settle_tests(folder, "others", store)


def test_what_an_earlier_version_did_not_know_was_as_it_is_by_default(folder: Path) -> None:
    earlier = {name: value for name, value in CONFIG.values().items() if name != "evaluation_seed"}
    with TrialStore(folder / "trials.sqlite", write=True) as store:
        store.set_fact("config", json.dumps(earlier, sort_keys=True))
        settle(folder, CONFIG, "data", store)
        assert len(store.trials()) == 1
        settle(folder, replace(CONFIG, evaluation_seed=3), "data", store)
        assert store.trials() == []


def test_a_run_is_finished_until_it_is_raised(folder: Path) -> None:
    with TrialStore(folder / "trials.sqlite", write=True) as store:
        assert not is_finished(CONFIG, store)
        mark_finished(CONFIG, store)
        assert is_finished(CONFIG, store)
        assert is_finished(replace(CONFIG, workers=3, threads=2), store)
        assert not is_finished(replace(CONFIG, beam=5), store)


@pytest.mark.parametrize("edit", [{"beam": 9}, {"kappa": 1.0}, {"operations": ["identity"]}, {"new": 1}])
def test_an_edited_configuration_is_never_shown_over_other_results(
    folder: Path, edit: dict[str, object]
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(RunError, match=rf"config.json: was edited \({next(iter(edit))} .*; put it back"):
        RunRecord.load(folder)


def test_its_layout_is_nobodys_business(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert len(RunRecord.load(folder).trials) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_it_may_be_killed_while_the_configuration_is_raised(
    folder: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SearchConfig.save

    def die(config: SearchConfig, path: Path) -> None:
        if moment == "after":
            save(config, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchConfig, "save", die)
    with pytest.raises(KeyboardInterrupt):
        settled(folder, replace(CONFIG, beam=5))
    monkeypatch.undo()
    assert RunRecord.load(folder).config["beam"] == (5 if moment == "after" else 4)
    assert settled(folder, replace(CONFIG, beam=5)) == []
    assert RunRecord.load(folder).config["beam"] == 5


def test_raising_forgets_what_followed_and_keeps_what_was_measured(folder: Path) -> None:
    assert settled(folder, replace(CONFIG, beam=5)) == []
    assert RunRecord.load(folder).trials == []
    with TrialStore(folder / "trials.sqlite") as store:
        assert store.measurement(ASKED[0].key("e")) is not None


def test_how_it_is_carried_out_may_change_and_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(folder, replace(CONFIG, time_limit=9.0, data="cifar10:elsewhere", workers=3)) == []
    assert settled(folder, replace(CONFIG, threads=2)) == [
        "this run began with another threads: results may differ in their last bits"
    ]
    assert settled(folder, replace(CONFIG, threads=2)) == []
    assert len(RunRecord.load(folder).trials) == 1
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert settled(folder, replace(CONFIG, threads=2)) == [
        "this run began with another processor: results may differ in their last bits"
    ]


def test_other_data_are_refused(folder: Path) -> None:
    with pytest.raises(RunError, match="were trained on other images than those of --data digits"):
        settled(folder, CONFIG, "other data")
