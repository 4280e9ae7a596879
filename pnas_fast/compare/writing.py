"""The files of a comparison: every point, every number, the page and its figures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.curves import MOST
from pnas_fast.compare.page import render_page
from pnas_fast.compare.saved import PAGE
from pnas_fast.compare.summary import summarise
from pnas_fast.files import write_text
from pnas_fast.report.text import printable
from pnas_fast.runs.disk import writing


def write_comparison(folder: Path, comparison: Comparison, own: float | None) -> dict[str, Any]:
    """Write ``compare.html``, ``figures/*.svg``, ``curves.csv`` and ``summary.json``; the latter's values.

    Args:
        folder: of the comparison, which is there.
        comparison: of runs.
        own: a target of the person's own, or None.

    Raises:
        DiskError: the folder cannot be written.
    """
    summary = summarise(comparison, own)
    page, figures = render_page(comparison, summary)
    files = {f"figures/{figure.name}.svg": figure.file_text for figure in figures}
    files |= {
        "curves.csv": curves_csv(comparison),
        "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
        PAGE: printable(page),
    }
    with writing(folder / "figures"):
        (folder / "figures").mkdir(exist_ok=True)
    for name, content in files.items():
        with writing(folder / name):
            write_text(folder / name, content)
    return summary


def curves_csv(comparison: Comparison) -> str:
    """A row a run and child: what had been paid by then, and T_M by each measure, empty where unknown."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    names = [f"{measure.name}_top{most}" for measure in comparison.measures for most in MOST]
    volumes = comparison.hypervolumes
    last = ["hypervolume"] if volumes else []
    rows.writerow(["strategy", "seed", "cells", "images", "seconds", *names, *last])
    for group in comparison.groups:
        for place, run in enumerate(group.runs):
            curves = run.curves.reshape(len(names), -1)
            for n in range(curves.shape[1]):
                values = ["" if value != value else f"{value:.6f}" for value in curves[:, n]]
                images, seconds = run.costs["images"][n], run.costs["seconds"][n]
                values += [f"{volumes[group.strategy][place][n]:.6f}"] if volumes else []
                rows.writerow([group.strategy, run.seed, n + 1, f"{images:.0f}", f"{seconds:.3f}", *values])
    return text.getvalue()
