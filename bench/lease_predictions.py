"""What is expected of a card, written down before it was asked, and what was measured beside it.

All of an H100, from its measured times of older kernels, counted launches, bytes and instructions. Latency
and instructions, not bandwidth, bound most launches, so an H200 should be near, and never 1.4 times as fast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gpu_children

Report = dict[str, Any]


class Prediction(NamedTuple):
    """Of one number.

    Attributes:
        name: of it, with its unit.
        path: names that lead to it in the report, from the part's on.
        low: the least that is expected.
        high: the most.
        why: it is expected.
    """

    name: str
    path: tuple[str, ...]
    low: float
    high: float
    why: str


def _kernel(name: str, roofline: float, before: float) -> Prediction:
    path = ("replay by launch", "kernels", f"{name}_kernel", "microseconds")
    why = "between its roofline and what the older kernel took"
    return Prediction(f"{name}, µs a step", path, roofline, before, why)


PREDICTIONS = (
    Prediction(
        "step in a graph, ms", ("step", "in a graph, ms"), 7.8, 8.7,
        "9.9 before taps got cheaper and launches fewer",
    ),
    Prediction(
        "launches of a step", (gpu_children.CEILING, "launches"), 170, 177,
        "counted, without and with PyTorch's own",
    ),
    Prediction(
        "roofline of a step, ms", (gpu_children.CEILING, "step, ms"), 1.25, 1.8, "counted; 1.78 at 3.0 TB/s"
    ),
    _kernel("separable_backward", 783, 4492),
    _kernel("separable", 216, 2182),
    _kernel("add_backward", 212, 1395),
    _kernel("pointwise_backward", 229, 593),
    _kernel("dense", 124, 543),
    _kernel("dense_backward", 74, 406),
    _kernel("add", 137, 292),
    Prediction(
        "packing: 8 t(128) / t(1024)", ("batches", "step", "gain"), 2.0, 2.3,
        "more than half of a launch's time is waiting that does not grow",
    ),
    Prediction(
        "prototype: forward 5×5, µs", ("prototype", "µs", "5×5", "forward"), 4, 16,
        "a quarter of Triton's instructions, every tensor read once; 4 is the roofline",
    ),
    Prediction(
        "prototype: backward 5×5, µs", ("prototype", "µs", "5×5", "backward"), 16, 31,
        "a quarter of Triton's instructions, no gradient of the depthwise half in memory",
    ),
    Prediction(
        "prototype: Triton's 5×5 / its", ("prototype", "µs", "5×5", "ratio"), 1.5, 4.7,
        "1.5 and more decides for CUDA C++",
    ),
    *(
        Prediction(
            f"streams: gain of {count} with shares",
            ("graphs on streams", f"{count}, 1/{count} of the card", "gain"),
            low, 2.1, "what one child waits for, another uses",
        )
        for count, low in ((2, 1.4), (4, 1.8), (8, 1.8))
    ),
    Prediction(
        "processes: gain of 4 without MPS", ("processes", "without MPS", "4", "gain"), 0.9, 1.05,
        "kernels of different processes never run at once",
    ),
    Prediction(
        "processes: gain of 4 with MPS", ("processes", "with MPS", "4", "gain"), 1.3, 1.8,
        "they do, with the launch costs of each",
    ),
    Prediction(
        "a child alone, images/s", (f"{gpu_children.ALONE} triton", "images/s"), 14_500, 16_000,
        "128 images in a step and less than 0.14 ms of optimiser",
    ),
)  # fmt: skip


def table() -> list[Report]:
    """Predictions alone."""
    return [_row(prediction, None) for prediction in PREDICTIONS]


def compare(report: Report) -> list[Report]:
    """Each beside what was measured: ``verdict`` is what that is, beside what was expected."""
    return [_row(prediction, _measured(report, prediction.path)) for prediction in PREDICTIONS]


def _measured(report: Report, path: tuple[str, ...]) -> float | None:
    value: Any = report["parts"].get(path[0], {}).get("result")
    for name in path[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def _row(prediction: Prediction, measured: float | None) -> Report:
    verdict = "not measured"
    if measured is not None:
        verdict = "as predicted"
        if not prediction.low <= measured <= prediction.high:
            verdict = "below" if measured < prediction.low else "above"
    return {
        "name": prediction.name, "low": prediction.low, "high": prediction.high, "why": prediction.why,
        "measured": measured, "verdict": verdict,
    }  # fmt: skip
