"""Compiling what a search's children will launch, before any of them waits for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from pnas_fast.engine.precision import DTYPES
from pnas_fast.kernels import get_backend
from pnas_fast.search.config import SearchConfig


def warm_kernels(
    config: SearchConfig, image_shape: tuple[int, int, int], note: Callable[[str], None]
) -> None:
    """Run `pnas_fast.kernel_tools.warm` for a resolved configuration, if its kernels are compiled at all.

    It shows its own progress. What it cannot compile children compile, or they fail and say why.

    Args:
        config: resolved.
        image_shape: (C, H, W) of the data set.
        note: is given a line for people.
    """
    if not get_backend(config.backend).warms:
        return
    channels, height, width = image_shape
    command = [
        sys.executable, "-m", "pnas_fast.kernel_tools.warm", "--filters", str(config.filters),
        "--repeats", str(config.repeats), "--blocks", str(config.blocks),
        "--image", f"{height}x{width}x{channels}", "--operations", ",".join(config.operations),
        "--dtype", str(DTYPES[config.precision]).removeprefix("torch."),
    ]  # fmt: skip
    note("compiling kernels, once for this machine")
    if subprocess.run(command, check=False).returncode:
        note("not every kernel could be compiled ahead; children go on without")
