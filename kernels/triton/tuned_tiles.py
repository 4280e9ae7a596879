"""Tiles that were measured: a JSON file for each generation of cards, beside this one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pnas_fast.kernels.triton.launch import Tile

_trials: list[tuple[Mapping[str, Tile], dict[str, Tile]]] = []


def table_path(generation: int) -> Path:
    """Of a compute capability, 90 for 9.0."""
    return Path(__file__).parent / f"tiles_sm_{generation}.json"


def read_tiles(path: Path) -> dict[str, Tile]:
    """Tiles by key; none where there is no file."""
    if not path.exists():
        return {}
    return {key: Tile(*row) for key, row in json.loads(path.read_text(encoding="utf-8")).items()}


def write_tiles(path: Path, tiles: Mapping[str, Tile]) -> None:
    """Under a temporary name first: a reader never sees half a table."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(dict(sorted(tiles.items())), indent=0) + "\n", encoding="utf-8")
    unfinished.replace(path)


@contextmanager
def trying(tiles: Mapping[str, Tile]) -> Iterator[dict[str, Tile]]:
    """While it lasts, these tiles go before all others; yields every answer given, by key."""
    _trials.append((tiles, {}))
    try:
        yield _trials[-1][1]
    finally:
        _trials.pop()


def measured(key: str, generation: int, usual: Tile) -> Tile:
    """The tile to use for a key: the one on trial, the one measured for the generation, or the usual."""
    tile = _table(generation).get(key, usual)
    if _trials:
        tiles, answers = _trials[-1]
        answers[key] = tile = tiles.get(key, tile)
    return tile


@cache
def _table(generation: int) -> dict[str, Tile]:
    return read_tiles(table_path(generation))
