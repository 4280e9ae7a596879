"""The benchmark of decoding measures ours where torchvision is missing, and says so."""

import json
import sys
from pathlib import Path

import pytest

import decoding


def test_ours_alone_is_measured_where_torchvision_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    path = tmp_path / "found.json"
    line = f"decoding.py --images 30 --image-size 8 --rounds 2 --json {path}"
    monkeypatch.setattr(sys, "argv", line.split())
    assert decoding.main() == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("bench/decoding.py: torchvision cannot be imported (")
    assert first.endswith("): ours alone is measured")
    assert [line.partition(":")[0] for line in lines] == ["decoded", "opened"] * 2
    found = json.loads(path.read_text())
    assert (found["images"], found["image_size"], found["ratios"]) == (30, 8, {})
    assert {name: len(rates) for name, rates in found["images_per_second"].items()} == {
        "decoded": 2,
        "opened": 2,
    }
