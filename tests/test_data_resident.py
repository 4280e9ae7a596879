"""An opened data set takes little more memory than its pixels and labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

IMAGES = 30_000
MEASURE = """
import sys
from pathlib import Path
from pnas_fast.data import load

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

load(f"npz:{sys.argv[1]}")  # what is imported once
before = resident()
data = load(f"npz:{sys.argv[2]}")
held = resident() - before
parts = (data.train_images, data.train_labels, data.validation_images, data.validation_labels)
print(held / sum(part.nbytes for part in parts))
"""


def write(path: Path, images: int) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in {"train": images, "val": images // 4}.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 10
    np.savez(path, **arrays)
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is read from Linux")
def test_pixels_are_held_once(tmp_path: Path) -> None:
    paths = [write(tmp_path / "small.npz", 200), write(tmp_path / "large.npz", IMAGES)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert 0.9 < float(done.stdout.splitlines()[-1]) < 1.1
