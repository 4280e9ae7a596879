"""How fast a folder of JPEG files becomes a data set, beside torchvision's loader.

    python bench/decoding.py [--images 4000] [--image-size 64] [--rounds 3] [--json FILE]

The files, of about 100×100 pixels, are made from a fixed seed in a temporary folder. In turn, in one run:

* ``decoded``: the folder's tree is read, its files decoded and resized in as many processes as there are
  cores, into one array. That is what torchvision's loader does, too.
* ``opened``: all that a person waits for when a folder is new, order, split, statistics and a cache file that
  is safe on the disk among it. A second time nothing of it is done.
* ``torchvision``: an ImageFolder (the shorter side resized, the square in the middle) and one pass of a
  DataLoader of as many processes.

Ratios are of the best rounds, so that a busy machine changes them less. Exits with status 1 where files are
decoded slower than 0.8 of torchvision's, which has to be installed for that and is no dependency of this
package.
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
from pnas_fast.data.decoding import decode
from pnas_fast.data.memory import silent
from pnas_fast.data.tree import read_tree
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


def decoded(folder: Path, size: int) -> int:
    """Decode the folder's files; how many there are."""
    paths = [file.path for files in read_tree(folder).parts.values() for file in files]
    found = decode("", paths, size, skip=False, say=silent, progress=silent)
    return len(found.images)


def opened(folder: Path, size: int) -> int:
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
    loaders = {"decoded": decoded, "opened": opened, "torchvision": torchvision_s}
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
    theirs = best.pop("torchvision", None)
    ratios = {} if theirs is None else {name: ours / theirs for name, ours in best.items()}
    for name, ratio in ratios.items():
        print(f"{name} / torchvision {torchvision.__version__}: {ratio:.2f}")
    if options.json is not None:
        found = {"images": options.images, "image_size": options.image_size, "cores": cores()}
        found |= {"images_per_second": rates, "ratios": ratios}
        write_text(options.json, json.dumps(found, indent=2) + "\n")
    return int(ratios.get("decoded", AIM) < AIM)


if __name__ == "__main__":
    sys.exit(main())
