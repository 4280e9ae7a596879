"""A finished run in miniature, for tests of what is done with one."""

from pathlib import Path

from pnas_fast import Cell, SearchConfig
from pnas_fast.engine import load_training_data
from pnas_fast.evaluation import train_child
from pnas_fast.runs.weights import BEST, save_child

CELL = Cell.parse("0:sep3x3+1:max_pool3x3,1:identity+2:avg_pool3x3")
CONFIG = SearchConfig(epochs=4, filters=8, backend="eager", device="cpu", learning_rate=0.05, finalists=0)


def make_run(folder: Path) -> Path:
    """Train one child on the digits and leave it where a search leaves its best."""
    data = load_training_data(CONFIG)
    result, network = train_child(CELL, CONFIG, data, seed=0)
    assert network is not None, result.error
    folder.mkdir()
    CONFIG.save(folder / "config.json")
    save_child(network, data, folder / BEST)
    return folder
