"""How well a step of 5 ms is fed from a folder of JPEGs: by streamed batches, and by a plain DataLoader.

The plain one is what most programs have: a data set that decodes an image at a time, PyTorch's loader with as
many processes, shuffled, and batches normalised where they arrive. Both decode with the same function, and
take turns. ``python bench/streaming.py [IMAGES]``
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pnas_fast.data import DataSet, Pictures, TrainingBatches, load
from pnas_fast.data.streamed import Streamed
from pnas_fast.pictures import own_pixels
from pnas_fast.threads import cores, torch_threads

SIDE, SIZE = 100, 64
BATCH = 32
STEP_SECONDS = 0.005
ROUNDS = 4


class Spent(NamedTuple):
    """Seconds on the clock, and of all processors: these do not depend on what else the machine does."""

    seconds: float
    processors: float

    @classmethod
    def now(cls) -> Spent:
        ticks = 0
        for process in multiprocessing.active_children():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # in user mode and in the kernel
        return cls(time.perf_counter(), time.process_time() + ticks / os.sysconf("SC_CLK_TCK"))


class Plain(Dataset[Any]):
    """An image and its label, by its number."""

    def __init__(self, images: Streamed, labels: Tensor) -> None:
        self._paths = [images.name(place) for place in range(len(images))]
        self._labels = labels.tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        pixels = own_pixels(self._paths[place], SIZE).copy()  # may be written to, as torch wants it
        return torch.from_numpy(pixels).permute(2, 0, 1), self._labels[place]


def write(root: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
        folder = root / str(number % 10)
        folder.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def streamed(data: DataSet) -> Callable[[int], int]:
    batches = TrainingBatches(data, BATCH, 0)

    def epoch(number: int) -> int:
        for _ in batches.epoch(number):
            time.sleep(STEP_SECONDS)
        return len(batches)

    return epoch


def plain(data: DataSet) -> Callable[[int], int]:
    assert isinstance(data.train_images, Streamed)
    loader = DataLoader(
        Plain(data.train_images, data.train_labels),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=cores(),
        persistent_workers=True,
    )
    mean, std = (value[:, None, None] for value in (data.mean, data.std))

    def epoch(number: int) -> int:
        for images, _ in loader:
            (images.float() - mean) / std
            time.sleep(STEP_SECONDS)
        return len(loader)

    return epoch


def main(count: int) -> None:
    with TemporaryDirectory() as folder, torch_threads(1):
        write(Path(folder), count)
        data = load(f"imagefolder:{folder}", pictures=Pictures(SIZE))
        sides = {"streamed": streamed(data), "plain": plain(data)}
        for epoch in sides.values():
            epoch(0)  # starts the processes
        spent: dict[str, list[Spent]] = {name: [] for name in sides}
        steps = 0
        for number in range(1, ROUNDS + 1):
            for name, epoch in sides.items():
                before = Spent.now()
                steps = epoch(number)
                now = Spent.now()
                spent[name].append(Spent(now.seconds - before.seconds, now.processors - before.processors))
        for name, found in spent.items():
            seconds, processors = (min(values) for values in zip(*found, strict=True))
            images = steps * BATCH
            print(
                f"{name:8}  {1000 * seconds / steps:6.2f} ms a step, {images / seconds:,.0f} images/s, "
                f"{1e6 * processors / images:,.0f} µs of processors an image"
            )
        for what in range(len(Spent._fields)):
            one, other = ([each[what] for each in found] for found in spent.values())
            ratios = " ".join(f"{mine / theirs:.2f}" for mine, theirs in zip(one, other, strict=True))
            print(f"streamed / plain, {Spent._fields[what]}: {min(one) / min(other):.2f}, in turns {ratios}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
