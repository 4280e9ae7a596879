"""What a long training shows: a bar on a terminal, lines elsewhere."""

import io
import time

import pytest
from rich.console import Console

from pnas_fast.train.config import TrainConfig
from pnas_fast.train.display import Display
from pnas_fast.train.history import Epoch

CONFIG = TrainConfig(epochs=600)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def record(epoch: int) -> Epoch:
    return Epoch(epoch, 1.25, 0.5, 0.75, 60.0, 4500)


def test_a_terminal_of_80_columns_shows_everything(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    shown = Display(console, CONFIG, steps=1406)
    for _ in range(1406):
        shown.step(0, 1, None)
    clock[0] += 45.0
    shown.epoch(record(1), 0.75)
    shown.step(1, 703, 1.5)
    shown.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("epoch 2/600", "loss 1.500", "75.00 %", "1,001 images/s", "7 h 29 min left"):
        assert part in text
    assert "…" not in text


def test_a_log_has_a_line_now_and_then_and_the_last(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=40)
    shown = Display(console, CONFIG, steps=10)
    for epoch in (1, 2, 3):
        shown.step(epoch - 1, 10, 1.0)
        clock[0] += 10.0
        shown.epoch(record(epoch), 0.75)
    shown.epoch(record(600), 0.75)
    shown.close()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/600", "epoch 3/600", "epoch 600/600"]
    assert "loss 1.250, 75.00 %, best 75.00 %" in lines[0]
