"""Draws docs/growth.svg: the time to expand four-block cells against the candidates they expand to.

    python bench/growth.py

The terminal shows the numbers behind it.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pnas_fast.candidates import expand
from pnas_fast.files import write_text
from pnas_fast.report.palette import level_colour
from pnas_fast.report.svg import report_style, to_svg
from test_speed_of_candidates import plain_expand, random_cells

PICTURE = Path(__file__).parents[1] / "docs" / "growth.svg"
ENGINE_PARENTS = (85, 270, 850, 2_700, 8_500)
PLAIN_PARENTS = (1, 4, 16)

Point = tuple[int, float]


def measure(work: Callable[[int], int], parents: Sequence[int], rounds: int) -> list[Point]:
    """Candidates made from so many parents, and the least seconds of some rounds."""
    points = []
    for count in parents:
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            candidates = work(count)
            seconds.append(time.perf_counter() - started)
        points.append((candidates, min(seconds)))
    return points


def draw(series: dict[str, list[Point]]) -> Figure:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (label, points) in enumerate(series.items(), 1):
        axes.plot(*zip(*points, strict=True), "o-", markersize=4.4, color=level_colour(number), label=label)
    axes.set(xscale="log", yscale="log", xlabel="distinct five-block candidates", ylabel="seconds")
    axes.legend()
    return figure


def main() -> None:
    series = {
        "plain Python": measure(lambda count: len(plain_expand(random_cells(count, 4))), PLAIN_PARENTS, 2),
        "engine": measure(lambda count: len(expand(random_cells(count, 4)).parent), ENGINE_PARENTS, 7),
    }
    for label, points in series.items():
        for candidates, seconds in points:
            each = f"{1e9 * seconds / candidates:,.1f} ns each"
            print(f"{label:12} {candidates:>10,} {1e3 * seconds:>10,.2f} ms  {each:>18}")
    with report_style():
        title = "Time to expand four-block cells by a block against the candidates made, on logarithmic axes"
        write_text(PICTURE, to_svg(draw(series), "growth", title).file_text)


if __name__ == "__main__":
    main()
