"""The report: page and figures agree with the store, for whole, partial, failed and empty runs."""

import json
import random
import re
import sqlite3
from collections import Counter
from contextlib import closing
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells import PNASNET5, random_cells
from pnas_fast.counting import count_distinct
from pnas_fast.report import text as wording
from pnas_fast.report.axes import typical_range
from pnas_fast.report.page import write_report
from pnas_fast.report.palette import THEME
from pnas_fast.report.prediction import draw_predictions
from pnas_fast.report.progress import draw_progress
from pnas_fast.report.record import PAPER_IMAGES, ReportError, RunRecord
from pnas_fast.report.time import draw_times
from pnas_fast.report.usage import operation_shares
from pnas_fast.runs.store import Level, Prediction, StoreError, Trial, TrialStore
from pnas_fast.space import OPERATIONS

HOSTILE = "<script>alert('x')</script> & \"quotes\""
CHARTS = {"progress", "prediction", "cost", "operations", "time"}
VOID = {"meta", "link", "br", "wbr", "img", "hr", "input"}


def random_trial(position: int, cell: str, level: int, failed: bool, generator: random.Random) -> Trial:
    # One in ten is far below the others.
    accuracy = None if failed else generator.choice([0.8] * 9 + [0.1]) + 0.19 * generator.random()
    return Trial(
        position=position,
        cell=cell,
        level=level,
        status="failed" if failed else "done",
        accuracy=accuracy,
        loss=None if failed else generator.random(),
        epoch_losses=(2.0, 1.0),
        seconds=generator.uniform(0.5, 9),
        images_per_second=1000.0,
        images_seen=generator.randrange(1, 40_000),
        parameters=generator.randrange(1_000, 900_000),
        multiply_adds=generator.randrange(10_000, 200_000_000),
        error=f"{HOSTILE} {position}" if failed else None,
        evaluation_seconds=0.0 if failed else 0.25,
        waiting_seconds=generator.random(),
        memory=None if failed else 3 * 2**30,
        device="cuda:0",
    )


def make_run(
    folder: Path, sizes: list[int], *, blocks: int = 3, failures: float = 0.1, finished: int | None = None
) -> Path:
    """A run with ``sizes[i]`` children at level i + 1, of which the first ``finished`` levels are done."""
    folder.mkdir(parents=True)
    generator = random.Random(f"{sizes} {failures}")
    config = {"blocks": blocks, "operations": list(OPERATIONS), "data": HOSTILE, "fused": True, "limit": None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    position = 0
    with TrialStore(folder / "trials.sqlite") as store:
        for level, size in enumerate(sizes, start=1):
            predictions = {}
            for cell in random_cells(level, size, generator):
                store.add(random_trial(position, cell, level, generator.random() < failures, generator))
                before = None if level == 1 else generator.random()
                predictions[cell] = Prediction(before, generator.random())
                position += 1
            if finished is None or level <= finished:
                rho = None if level == 1 else generator.uniform(-1, 1)
                store.finish_level(
                    Level(level, 97 * level, rho, generator.random(), 1.5, 4, 2.5), predictions
                )
    return folder


class Page(HTMLParser):
    """What the tests look at: tags with attributes, text by section, table rows, balance of tags."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.text = ""
        self._section = "header"
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = attributes["id"]
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self._open and {"td", "th"} & set(self._open):
            self.rows[self._section][-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def body_rows(self, section: str) -> list[list[str]]:
        return self.rows[section][1:]


def read_page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run", [136, 24, 16])


@pytest.fixture(scope="module")
def page(run):
    return read_page(run)


@pytest.fixture(scope="module")
def record(run):
    return RunRecord.load(run)


def test_page_has_every_section(page):
    expected = {"cells", "search", "prediction", "cost", "operations", "top", "levels", "time", "failed"}
    assert set(page.sections) == expected | {"header", "configuration", "files"}
    assert all(page.sections[name].strip() for name in expected)


def test_page_loads_nothing(run, page):
    source = (run / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "img", "iframe", "image", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in source
    assert page.attributes("src") == []
    for target in page.attributes("href") + page.attributes("xlink:href"):
        assert target.startswith("#") or (run / target).is_file(), target
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", source))


def test_ids_are_unique_and_every_reference_finds_its_target(run, page):
    source = (run / "report.html").read_text(encoding="utf-8")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    references = re.findall(r"url\(#([^)]*)\)", source) + re.findall(r'href="#([^"]*)"', source)
    assert references
    assert {*references, *page.attributes("aria-labelledby")} <= set(ids)


def test_what_children_say_is_escaped(page, record):
    assert "script" not in {tag for tag, _ in page.tags}
    reasons = [row[3] for row in page.body_rows("failed")]
    assert reasons == [trial.error for trial in record.failed]
    assert HOSTILE in page.sections["configuration"]


def test_headline_agrees_with_the_store(page, record):
    trials = record.trials
    best = max((trial for trial in trials if trial.accuracy is not None), key=lambda trial: trial.accuracy)
    header = page.sections["header"]
    assert f"{100 * best.accuracy:.1f} % validation accuracy" in header
    assert best.cell in header
    assert f"{best.parameters:,}" in header
    assert f"{best.multiply_adds / 1e6:.1f} M" in header
    assert f"{sum(trial.images_seen for trial in trials) / 1e6:.2f} M images" in header
    assert f"and {sum(trial.status == 'failed' for trial in trials)} failed" in header
    assert f"the paper's search: {PAPER_IMAGES / 1e9:.2f} B" in header
    assert "Unfinished" not in page.text


def test_table_of_the_best_trials(page, record):
    done = [trial for trial in record.trials if trial.accuracy is not None]
    best = sorted(done, key=lambda trial: -trial.accuracy)[:20]
    rows = page.body_rows("top")
    assert [row[1] for row in rows] == [trial.cell for trial in best]
    assert [row[3] for row in rows] == [f"{100 * trial.accuracy:.2f} %" for trial in best]
    assert [row[4] for row in rows] == [f"{trial.parameters:,}" for trial in best]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 21)]


def test_table_of_levels(page, record):
    for row, level in zip(page.body_rows("levels"), record.levels, strict=True):
        trials = [trial for trial in record.trials if trial.level == level.level]
        accuracies = [trial.accuracy for trial in trials if trial.accuracy is not None]
        share = level.candidates / count_distinct(level.level)
        assert row[:2] == [str(level.level), f"{level.candidates:,}"]
        assert float(row[2].removesuffix(" %")) / 100 == pytest.approx(share, rel=0.06)
        assert row[3:5] == [str(len(accuracies)), str(len(trials) - len(accuracies))]
        assert row[5:7] == [f"{100 * max(accuracies):.2f} %", f"{100 * np.mean(accuracies):.2f} %"]
        assert row[8] == f"{level.rho_after:.2f}"
        expected = "–" if level.rho_before is None else f"{level.rho_before:.2f}".replace("-", "−")
        assert row[7] == expected


def test_time_is_that_of_the_store(page, record):
    rows = page.body_rows("time")
    assert len(rows) == len(record.levels)
    for row, level in zip(rows, record.levels, strict=True):
        trials = [trial for trial in record.trials if trial.level == level.level]
        training = sum(trial.images_seen / 1000 for trial in trials)
        evaluation = sum(trial.evaluation_seconds for trial in trials)
        building = max(sum(trial.seconds for trial in trials) - training - evaluation, 0)
        waiting = sum(trial.waiting_seconds for trial in trials) + 2.5
        parts = np.array([training, evaluation, building, waiting, 1.5 * 4])
        assert row[:2] == [str(level.level), "4"]
        assert float(row[2].replace(",", "")) == round(1000 * training / (parts.sum() / 4))
        assert row[3:] == [f"{100 * part / parts.sum():.1f} %" for part in parts]
    assert "3.00 GiB of a GPU's memory" in page.sections["time"]


def test_time_bars_fill_the_whole_and_show_every_child(record):
    bars, rates = draw_times(record).axes
    widths = np.array([[bar.get_width() for bar in bars.containers[part]] for part in range(5)])
    assert widths.sum(axis=0) == pytest.approx(1)
    assert sum(len(line.get_xdata()) for line in rates.lines) == len(record.done)


def test_a_level_that_an_earlier_version_trained_has_no_times(tmp_path):
    folder = make_run(tmp_path / "run", [6, 5])
    with closing(sqlite3.connect(folder / "trials.sqlite")) as connection, connection:
        connection.execute("UPDATE trials SET waiting_seconds = NULL WHERE position = 2")
    assert [row[0] for row in read_page(folder).body_rows("time")] == ["2"]
    with closing(sqlite3.connect(folder / "trials.sqlite")) as connection, connection:
        connection.execute("UPDATE levels SET workers = NULL, waiting_seconds = NULL")
    assert "time" not in read_page(folder).sections


def test_configuration_is_shown_whole(page, record):
    rows = {row[0]: row[1] for row in page.rows["configuration"]}
    assert set(rows) == set(record.config)
    assert rows["operations"] == ", ".join(OPERATIONS)
    assert (rows["fused"], rows["limit"], rows["blocks"]) == ("yes", "–", "3")


def test_every_figure_is_a_file_and_in_the_page(run, page):
    files = {path.stem: path for path in (run / "figures").iterdir()}
    assert set(files) == CHARTS | {"cell_1", "cell_2", "cell_3"}
    for name, path in files.items():
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find(".//{http://www.w3.org/2000/svg}text") is not None
        assert root.find("{http://www.w3.org/2000/svg}title").text
        assert f"{name}-title" in page.attributes("aria-labelledby")


def test_inline_figures_follow_the_page_and_files_do_not(run):
    source = (run / "report.html").read_text(encoding="utf-8")
    body = source[source.index("</style>") :]
    for colour, variable in THEME.items():
        assert colour not in body
        assert variable in body
        assert f"{variable[4:-1]}:" in source[: source.index("</style>")]
    assert all("var(" not in path.read_text(encoding="utf-8") for path in (run / "figures").iterdir())


def test_same_run_gives_the_same_bytes_whatever_the_settings(tmp_path):
    def written(name):
        folder = make_run(tmp_path / name, [20, 8])
        write_report(folder)
        return {path.name: path.read_bytes() for path in [folder / "report.html", *folder.glob("figures/*")]}

    first = written("one")
    with matplotlib.rc_context({"font.size": 20, "axes.labelpad": 30, "xtick.direction": "in"}):
        second = written("two")
    assert len(first) == 1 + len(CHARTS) + 3
    assert first == second


def test_only_the_report_is_left_behind(run):
    before, files = dict(matplotlib.rcParams), {path.name for path in run.iterdir()}
    write_report(run)
    assert dict(matplotlib.rcParams) == before
    assert {path.name for path in run.iterdir()} == files | {"report.html", "figures"}
    assert {path.suffix for path in (run / "figures").iterdir()} == {".svg"}


@pytest.mark.parametrize(("sizes", "finished"), [([30], 0), ([30], 1), ([30, 9], 1), ([30, 9], 2)])
def test_unfinished_run_says_how_far_it_is(tmp_path, sizes, finished):
    page = read_page(make_run(tmp_path / "run", sizes, blocks=5, finished=finished))
    assert f"Unfinished: {finished} of 5 levels done, {sum(sizes)} children so far" in page.text
    assert len(page.body_rows("levels")) == len(sizes)


def test_run_without_trials(tmp_path):
    page = read_page(make_run(tmp_path / "run", []))
    assert "Nothing trained yet" in page.text
    assert "Unfinished: 0 of 3 levels done, 0 children so far" in page.text
    assert set(page.sections) == {"header", "configuration", "files"}
    assert "svg" not in {tag for tag, _ in page.tags}


def test_run_of_failures_only(tmp_path):
    folder = make_run(tmp_path / "run", [5], failures=1.0)
    page = read_page(folder)
    assert "All 5 children so far failed" in page.text
    assert len(page.body_rows("failed")) == 5
    assert "top" not in page.sections
    assert not list((folder / "figures").iterdir())


def test_run_with_one_child(tmp_path):
    folder = make_run(tmp_path / "run", [1], failures=0.0, blocks=1)
    page = read_page(folder)
    assert "The best trial" in page.text
    assert {path.stem for path in folder.glob("figures/*")} == CHARTS - {"operations"} | {"cell_1"}


@settings(max_examples=5, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    failures=st.sampled_from([0.0, 0.5]),
    finished=st.integers(0, 5),
)
def test_any_run_has_a_page(tmp_path_factory, sizes, failures, finished):
    folder = tmp_path_factory.mktemp("any") / "run"
    page = read_page(make_run(folder, sizes, blocks=5, failures=failures, finished=finished))
    assert len(page.body_rows("levels")) == len(sizes)


def test_children_of_one_accuracy_and_wild_predictions(tmp_path):
    folder = make_run(tmp_path / "run", [])
    generator = random.Random(5)
    names = random_cells(1, 12, generator)
    with TrialStore(folder / "trials.sqlite") as store:
        for position, cell in enumerate(names):
            trial = random_trial(position, cell, 1, False, generator)
            values = {name: getattr(trial, name) for name in Trial.__slots__}
            store.add(Trial(**values | {"accuracy": 0.1, "parameters": 5000}))
        wild = [1e9, float("inf"), float("nan"), -3.0, None, *[0.1] * 7]
        predictions = {cell: Prediction(None, value) for cell, value in zip(names, wild, strict=True)}
        store.finish_level(Level(1, 12, None, None, 0.1), predictions)
    page = read_page(folder)
    assert "ρ undefined" in page.sections["prediction"]


def test_configuration_may_lack_everything(tmp_path):
    folder = make_run(tmp_path / "run", [6])
    (folder / "config.json").write_text("{}", encoding="utf-8")
    page = read_page(folder)
    assert "Unfinished" not in page.text
    assert page.body_rows("levels")[0][2] == "–"


@pytest.mark.parametrize("config", [None, "[1]", "{"])
def test_folder_without_a_configuration_is_refused(tmp_path, config):
    folder = make_run(tmp_path / "run", [])
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ReportError, match=r"config\.json.*JSON object"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_folder_without_a_store_is_refused_and_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ReportError, match=r"trials\.sqlite: does not exist"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "trials.sqlite").write_text("x" * 5000, encoding="utf-8")
    with pytest.raises(StoreError):
        write_report(tmp_path)


def test_progress_shows_every_child(record):
    (axes,) = draw_progress(record).axes
    points = Counter()
    for line in axes.lines:
        points[line.get_marker()] += len(line.get_xdata()) if line.get_linestyle() == "None" else 0
    assert points["o"] + points["v"] == len(record.done)
    assert points["v"] > 0
    assert points["x"] == len(record.failed)
    (best,) = [line for line in axes.lines if line.get_label() == "best so far"]
    heights = best.get_ydata()
    assert all(low <= high for low, high in pairwise(heights))
    assert heights[-1] == max(item.accuracy for item in record.done)


def test_prediction_panels_show_the_level_and_its_rho(record):
    panels = [
        axes for axes in draw_predictions(record).axes if axes.get_title(loc="left") or axes.get_title()
    ]
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in panels]
    assert len(panels) == 2 * len(record.levels) - 1
    for level in record.levels:
        expected = [level.rho_after] if level.rho_before is None else [level.rho_before, level.rho_after]
        mine = [title for title in titles if title.startswith(f"level {level.level},")]
        shown = [float(title.rpartition("= ")[2].replace("−", "-")) for title in mine]
        assert shown == pytest.approx(expected, abs=0.005)


def test_pareto_front_is_what_no_other_child_beats(record):
    def cost(trial):
        return trial.parameters

    def beaten(item):
        return any(
            cost(other.trial) <= cost(item.trial)
            and other.accuracy >= item.accuracy
            and (cost(other.trial), other.accuracy) != (cost(item.trial), item.accuracy)
            for other in record.done
        )

    assert {item.trial.cell for item in record.front(cost)} == {
        item.trial.cell for item in record.done if not beaten(item)
    }


def test_shares_count_both_sides_of_every_block():
    shares = dict(zip(OPERATIONS, operation_shares([PNASNET5, "0:identity+1:identity"]), strict=True))
    assert shares["max_pool3x3"] == pytest.approx(3 / 12)
    assert shares["identity"] == pytest.approx(3 / 12)
    assert shares["dil_conv3x3"] == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_typical_range_is_of_given_values_and_holds_the_middle_half(values):
    low, high = typical_range(values)
    assert {low, high} <= set(values)
    assert low <= np.median(values) <= high or len(values) % 2 == 0
    assert typical_range([0.9, 0.91, 0.92, 0.93, 0.1]) == (0.9, 0.93)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (wording.count(559_090), "559,090"),
        (wording.magnitude(112_046_784), "112.0 M"),
        (wording.magnitude(351_234), "0.35 M"),
        (wording.magnitude(PAPER_IMAGES), "1.04 B"),
        (wording.magnitude(99_999), "99,999"),
        (wording.percent(0.974), "97.4 %"),
        (wording.percent(None), "–"),
        (wording.correlation(-0.125), "−0.12"),
        (wording.correlation(-0.001), "0.00"),
        (wording.duration(0.84), "0.8 s"),
        (wording.duration(59.96), "1 min 00 s"),
        (wording.duration(245), "4 min 05 s"),
        (wording.duration(3599.7), "1 h 00 min"),
        (wording.duration(3 * 3600 + 7 * 60 + 10), "3 h 07 min"),
        (wording.duration(86_399), "1 d 00 h"),
        (wording.duration(51 * 3600), "2 d 03 h"),
        (wording.share(1.0), "100 %"),
        (wording.share(0.4812), "48 %"),
        (wording.share(3.14e-5), "0.0031 %"),
        (wording.share(1e-12), "< 0.000001 %"),
        (wording.share(0.0), "0 %"),
        (wording.plural(1, "child", "children"), "1 child"),
        (wording.plural(1160, "child", "children"), "1,160 children"),
    ],
)
def test_numbers_read_well(written, expected):
    assert written == expected
