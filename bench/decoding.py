"""How fast a folder of JPEG files becomes a data set, beside torchvision's loader.

    python bench/decoding.py [--images 4000] [--image-size 64] [--rounds 3] [--json FILE]

The files, of about 100×100 pixels, are made from a fixed seed in a temporary folder. Ours is all that a
person waits for when the folder is new: reading its tree, decoding and resizing in as many processes as there
are cores, order and split, writing the cache. torchvision's is an ImageFolder (the shorter side resized, the
square in the middle) and one pass of a DataLoader of as many processes. They take turns in one run, and the
ratio is of their best rounds, so that a busy machine hardly changes it. Exits with status 1 where ours is
slower than 0.8 of torchvision's, which has to be installed for that and is no dependency of this package.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pnas_fast.data import Pictures, load
from pnas_fast.files import write_text
from pnas_fast.threads import cores

AIM = 0.8
CLASSES = 10
BATCH = 128
SIDES = range(80, 121)
QUALITY = 90


def make(folder: Path, images: int) -> None:
    """Write so many JPEG files: noise in waves of colour, so that they compress about as photographs do."""
    random = np.random.default_rng(0)
    for number in range(images):
        height, width = random.choice(SIDES, 2)
        rows, columns = np.ogrid[:height, :width]
        waves = [np.sin(rows * a + columns * b + c) for a, b, c in random.uniform(0, (0.3, 0.3, 6.3), (3, 3))]
        pixels = 128 + 80 * np.stack(waves, -1) + random.normal(0, 12, (height, width, 3))
        path = folder / f"class-{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=QUALITY)


def ours(folder: Path, size: int) -> int:
    """Open the folder as a data set whose cache is empty; how many images it has."""
    with tempfile.TemporaryDirectory() as cache:
        data = load(f"folder:{folder}", pictures=Pictures(size, cache=cache))
    return len(data.train_labels) + len(data.validation_labels)


def torchvision_s(folder: Path, size: int) -> int:
    """One pass of torchvision's loader over the folder; how many images there were."""
    from torchvision import datasets, transforms

    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.PILToTensor()]
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    loader: Any = torch.utils.data.DataLoader(images, BATCH, num_workers=cores())
    return sum(len(labels) for _, labels in loader)


def rate(load: Callable[[Path, int], int], folder: Path, size: int) -> float:
    """Images a second."""
    started = time.perf_counter()
    images = load(folder, size)
    return images / (time.perf_counter() - started)


def main() -> int:
    """Measure, print, and say by the exit status whether ours is fast enough."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4000, metavar="N", help="files that are made [4000]")
    parser.add_argument("--image-size", type=int, default=64, metavar="N", help="pixels of a side [64]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each [3]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there")
    options = parser.parse_args()
    loaders = {"ours": ours, "torchvision": torchvision_s}
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:  # that of another PyTorch raises a RuntimeError
        print(f"bench/decoding.py: torchvision cannot be imported ({error}): ours alone is measured")
        del loaders["torchvision"]
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.images)
        for _ in range(options.rounds):
            for name, loader in loaders.items():
                rates[name].append(rate(loader, Path(folder), options.image_size))
                print(f"{name}: {rates[name][-1]:,.0f} images/s", flush=True)
    best = {name: max(found) for name, found in rates.items()}
    ratio = best["ours"] / best["torchvision"] if "torchvision" in best else None
    if ratio is not None:
        print(f"ours / torchvision {torchvision.__version__}: {ratio:.2f}, expected at least {AIM}")
    if options.json is not None:
        found = {"images": options.images, "image_size": options.image_size, "cores": cores()}
        found |= {"images_per_second": rates, "ratio": ratio}
        write_text(options.json, json.dumps(found, indent=2) + "\n")
    return int(ratio is not None and ratio < AIM)


if __name__ == "__main__":
    sys.exit(main())
