"""The report: page and figures agree with the store, for whole, partial, failed and empty runs."""

import json
import random
import re
import shutil
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells import PNASNET5
from pnas_fast.cli.options import ConfigError
from pnas_fast.counting import count_distinct
from pnas_fast.objectives import Accuracy, pareto_front
from pnas_fast.protocols import Measurement, Proposal
from pnas_fast.report import text as wording
from pnas_fast.report.__main__ import main
from pnas_fast.report.axes import typical_range
from pnas_fast.report.levels import levels_of
from pnas_fast.report.page import write_report
from pnas_fast.report.palette import THEME
from pnas_fast.report.prediction import draw_predictions
from pnas_fast.report.progress import draw_progress
from pnas_fast.report.strategies.progressive import PAGE, PAPER_IMAGES
from pnas_fast.report.time import draw_times
from pnas_fast.report.usage import operation_shares
from pnas_fast.report.view import RunView
from pnas_fast.runs.database import StoreError
from pnas_fast.runs.folder import RunError
from pnas_fast.runs.record import RunRecord
from pnas_fast.space import OPERATIONS, Cell
from report_runs import HOSTILE, distinct_cells, make_run, random_measurement, read_page, write_run

OLD_RUN = Path(__file__).parent / "data" / "run_of_schema_2"
CHARTS = {"progress", "prediction", "cost", "operations", "curves", "time"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run", [136, 24, 16], data=HOSTILE)


@pytest.fixture(scope="module")
def page(run):
    return read_page(run)


@pytest.fixture(scope="module")
def view(run):
    return RunView(RunRecord.load(run))


def test_page_has_every_section(page):
    own = {"search", "prediction", "levels"}
    common = {"cells", "cost", "operations", "curves", "trials", "time", "failed", "configuration", "files"}
    assert set(page.sections) == own | common | {"header"}
    assert all(page.sections[name].strip() for name in own | common)


def test_page_loads_nothing(run, page):
    source = (run / "report.html").read_text(encoding="utf-8")
    assert not {"link", "img", "iframe", "image", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in source
    assert page.attributes("src") == []
    for target in page.attributes("href") + page.attributes("xlink:href"):
        assert target.startswith("#") or (run / target).is_file(), target
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", source))


def test_page_runs_its_own_script_alone(page):
    data, script = page.scripts
    assert json.loads(data)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    (policy,) = [value for value in page.attributes("content") if "script-src" in value]
    assert policy.split("; ")[:3] == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]


def test_ids_are_unique_and_every_reference_finds_its_target(run, page):
    source = (run / "report.html").read_text(encoding="utf-8")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    references = re.findall(r"url\(#([^)]*)\)", source) + re.findall(r'href="#([^"]*)"', source)
    assert references
    assert {*references, *page.attributes("aria-labelledby")} <= set(ids)


def test_what_children_say_is_escaped(page, view):
    reasons = [row[3] for row in page.body_rows("failed")]
    assert reasons == [wording.printable(trial.measurement.error) for trial in view.failed]
    assert wording.printable(HOSTILE) in page.sections["configuration"]
    assert len(page.scripts) == 2
    told = [row[1][2] for row in page.table["rows"] if row[1][2] is not None]
    assert sorted(told) == sorted(trial.measurement.error for trial in view.failed)


def test_headline_agrees_with_the_store(page, view):
    best = max(view.done, key=lambda trial: trial.accuracy)
    header = page.sections["header"]
    assert f"{100 * best.accuracy:.1f} % validation accuracy" in header
    assert str(best.cell) in header
    assert f"{best.value('parameters'):,.0f}" in header
    assert wording.magnitude(best.value("multiply_adds")) in header
    assert f"{sum(trial.value('images_seen') for trial in view.trials) / 1e6:.2f} M images" in header
    assert f"and {sum(not trial.done for trial in view.trials)} failed" in header
    assert f"the paper's search: {PAPER_IMAGES / 1e9:.2f} B" in header
    assert "Unfinished" not in page.text


def test_table_of_levels(page, view):
    levels = levels_of(view)
    assert len(levels) == 3
    for row, level in zip(page.body_rows("levels"), levels, strict=True):
        trials = [trial for trial in view.trials if len(trial.cell) == level.group.number]
        accuracies = [trial.accuracy for trial in trials if trial.done]
        share = level.candidates / count_distinct(level.group.number)
        assert row[:2] == [str(level.group.number), f"{level.candidates:,.0f}"]
        assert float(row[2].removesuffix(" %")) / 100 == pytest.approx(share, rel=0.06)
        assert row[3:5] == [str(len(accuracies)), str(len(trials) - len(accuracies))]
        assert row[5:7] == [f"{100 * max(accuracies):.2f} %", f"{100 * np.mean(accuracies):.2f} %"]
        assert row[8] == f"{level.rho_after:.2f}"
        expected = "–" if level.rho_before is None else f"{level.rho_before:.2f}".replace("-", "−")
        assert row[7] == expected


def test_time_is_that_of_the_store(page, view):
    rows = page.body_rows("time")
    assert [row[:2] for row in rows] == [["level 1", "4"], ["level 2", "4"], ["level 3", "4"]]
    for row, level in zip(rows, levels_of(view), strict=True):
        values = [trial.measurement.values for trial in level.group.trials]
        training = sum(one["images_seen"] / 1000 for one in values)
        evaluation = sum(one["evaluation_seconds"] for one in values)
        building = max(sum(one["seconds"] for one in values) - training - evaluation, 0)
        waiting = sum(one["waiting_seconds"] for one in values) + 2.5
        parts = np.array([training, evaluation, building, waiting, 1.5 * 4])
        assert float(row[2].replace(",", "")) == round(1000 * training / (parts.sum() / 4))
        assert row[3:8] == [f"{100 * part / parts.sum():.1f} %" for part in parts]
        assert row[8] == f"2.5 s ({250 / parts.sum():.1f} %)"
    assert "3.00 GiB of a GPU's memory" in page.sections["time"]


def test_time_bars_fill_the_whole_and_show_every_child(view):
    bars, rates = draw_times(view).axes
    widths = np.array([[bar.get_width() for bar in bars.containers[part]] for part in range(5)])
    assert widths.sum(axis=0) == pytest.approx(1)
    assert sum(len(line.get_xdata()) for line in rates.lines) == len(view.done)


def test_a_level_whose_waiting_nobody_measured_has_no_times(tmp_path):
    generator = random.Random(3)
    trials = []
    for level, text in [(1, "0:identity+1:identity"), (2, "0:sep3x3+1:identity,0:identity+2:sep3x3")]:
        measured = random_measurement(level, False, generator)
        values = {
            name: value for name, value in measured.values.items() if (level, name) != (1, "waiting_seconds")
        }
        proposal = Proposal(Cell.parse(text), 2, note={"level": level})
        trials.append((proposal, Measurement("done", values)))
    notes = [("level", level, {"level": level}) for level in (1, 2)]
    notes += [("drained", level, {"workers": 1, "waited": 0.5}) for level in (1, 2)]
    page = read_page(write_run(tmp_path / "run", {}, trials, notes))
    assert [row[0] for row in page.body_rows("time")] == ["level 2"]
    page = read_page(write_run(tmp_path / "other", {}, trials, notes[:2]))
    assert "time" not in page.sections


def test_configuration_is_shown_whole(page, view):
    rows = {row[0]: row[1] for row in page.rows["configuration"]}
    assert set(rows) == set(view.record.config)
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
        files = [folder / "report.html", folder / "trials.csv", *folder.glob("figures/*")]
        return {path.name: path.read_bytes() for path in files}

    first = written("one")
    with matplotlib.rc_context({"font.size": 20, "axes.labelpad": 30, "xtick.direction": "in"}):
        second = written("two")
    assert len(first) == 2 + len(CHARTS) + 3
    assert first == second


def test_only_the_report_is_left_behind(run):
    before, files = dict(matplotlib.rcParams), {path.name for path in run.iterdir()}
    write_report(run)
    assert dict(matplotlib.rcParams) == before
    assert {path.name for path in run.iterdir()} == files | {"report.html", "trials.csv", "figures"}
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
    assert page.sections["trials"].count("failed") == 5
    assert not {"cells", "search", "cost", "curves"} & set(page.sections)
    assert not list((folder / "figures").iterdir())


def test_run_with_one_child(tmp_path):
    folder = make_run(tmp_path / "run", [1], failures=0.0, blocks=1)
    page = read_page(folder)
    assert "The only trial" in page.text
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
    generator = random.Random(5)
    wild = [1e9, None, -3.0, "x", True, *[0.1] * 7]
    trials = []
    for number, text in enumerate(distinct_cells(1, 12, generator)):
        values = {
            **random_measurement(number, False, generator).values,
            "accuracy": 0.1,
            "parameters": 5000.0,
        }
        trials.append((Proposal(Cell.parse(text), 2, note={"level": 1}), Measurement("done", values)))
    after = {str(number): value for number, value in enumerate(wild)}
    note = {
        "level": 1,
        "candidates": 12,
        "rho_after": None,
        "surrogate_seconds": 0.1,
        "predicted_after": after,
    }
    page = read_page(write_run(tmp_path / "run", {}, trials, [("level", 12, note)]))
    assert "ρ undefined" in page.sections["prediction"]


def test_notes_that_lack_everything(tmp_path):
    trials = [
        (Proposal(Cell.parse(PNASNET5), 2, note={"level": 1}), random_measurement(0, False, random.Random(1)))
    ]
    notes = [
        ("level", 1, {}),
        ("level", 2, {"level": 2}),
        ("level", 3, {"level": "x", "predicted_after": [3]}),
    ]
    page = read_page(write_run(tmp_path / "run", {"blocks": "x", "operations": ["x"]}, trials, notes))
    assert [row[0] for row in page.body_rows("levels")] == ["1", "2"]


def test_configuration_may_lack_everything(tmp_path):
    folder = make_run(tmp_path / "run", [6])
    (folder / "config.json").write_text("{}", encoding="utf-8")
    page = read_page(folder)
    assert "Unfinished" not in page.text
    assert page.body_rows("levels")[0][2] == "–"


def test_run_of_an_earlier_version_keeps_its_sections(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(OLD_RUN, folder)
    page = read_page(folder)
    expected = {"cells", "search", "prediction", "cost", "trials", "levels", "time", "configuration", "files"}
    assert expected <= set(page.sections)
    record = RunRecord.load(folder)
    assert len(page.table["rows"]) == len(record.trials)
    assert len(page.body_rows("levels")) == len(record.notes_named("level"))


def test_command_writes_the_page_and_says_where(tmp_path, capsys):
    folder = make_run(tmp_path / "run", [3])
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").is_file()


def test_command_refuses_in_one_line(tmp_path, capsys):
    for arguments in ([], [str(tmp_path)], [str(tmp_path / "nothing\n")], [str(tmp_path), "--more"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        written = capsys.readouterr()
        assert written.out == ""
        assert written.err.startswith("python -m pnas_fast.report: error: ")
        assert written.err.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0


@pytest.mark.parametrize("config", [None, "[1]", "{"])
def test_folder_without_a_configuration_is_refused(tmp_path, config):
    folder = make_run(tmp_path / "run", [])
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_folder_without_a_store_is_refused_and_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"trials\.sqlite"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "trials.sqlite").write_text("x" * 5000, encoding="utf-8")
    with pytest.raises(StoreError):
        write_report(tmp_path)


@pytest.mark.parametrize("narrow", [False, True])
def test_progress_shows_every_child(view, narrow):
    (axes,) = draw_progress(view, narrow).axes
    points = Counter()
    for line in axes.lines:
        points[line.get_marker()] += len(line.get_xdata()) if line.get_linestyle() == "None" else 0
    assert points["o"] + points["v"] == len(view.done)
    assert points["v"] > 0
    assert points["x"] == len(view.failed)
    (best,) = [line for line in axes.lines if line.get_label() == "best so far"]
    heights = best.get_ydata()
    assert all(low <= high for low, high in pairwise(heights))
    assert heights[-1] == view.ranked[0].accuracy


@pytest.mark.parametrize("narrow", [False, True])
def test_prediction_panels_show_the_level_and_its_rho(view, narrow):
    panels = draw_predictions(view, narrow).axes
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in panels]
    assert len([title for title in titles if title]) == 2 * 3 - 1
    for level in levels_of(view):
        expected = [level.rho_after] if level.rho_before is None else [level.rho_before, level.rho_after]
        mine = [title for title in titles if title.startswith(f"level {level.group.number},")]
        shown = [float(title.rpartition("= ")[2].replace("−", "-")) for title in mine]
        assert shown == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("narrow", [False, True])
def test_scores_have_an_axis_of_their_own_and_no_diagonal(tmp_path, narrow):
    """Scores between 0 and 1 against accuracies, which a search that learned losses predicts."""
    for learn in ("accuracy", "loss"):
        folder = make_run(tmp_path / learn, [20, 12], blocks=2, learn=learn)
        scored = RunView(RunRecord.load(folder))
        figure = draw_predictions(scored, narrow)
        panels = [axes for axes in figure.axes if axes.get_title()]
        diagonals = [line for axes in panels for line in axes.lines if line.get_linestyle() == "--"]
        texts = {text.get_text() for text in figure.texts}
        title = PAGE.sections(scored)[0].charts[0].title
        if learn == "accuracy":
            assert len(diagonals) == len(panels)
            assert all(axes.get_xlim() == axes.get_ylim() for axes in panels)
            assert "predicted accuracy, %" in texts
            assert "Predicted score" not in title
        else:
            assert diagonals == []
            assert all(axes.get_xlim() != axes.get_ylim() for axes in panels)
            assert "predicted score" in texts
            assert "Predicted score" in title


def test_pareto_front_is_what_no_other_child_beats(view):
    def cost(trial):
        return trial.value("parameters")

    def beaten(trial):
        return any(
            cost(other) <= cost(trial)
            and other.accuracy >= trial.accuracy
            and (cost(other), other.accuracy) != (cost(trial), trial.accuracy)
            for other in view.done
        )

    expected = {trial.number for trial in view.done if not beaten(trial)}
    assert {trial.number for trial in pareto_front(view.trials, cost, Accuracy().of)} == expected


def test_shares_count_both_sides_of_every_block():
    cells = [PNASNET5, "0:identity+1:identity"]
    shares = dict(zip(OPERATIONS, operation_shares(map(Cell.parse, cells)), strict=True))
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
        (wording.percent(float("nan")), "–"),
        (wording.accuracy(0.974, 0.0051), "97.40 ± 0.51 %"),
        (wording.accuracy(0.974, None), "97.40 %"),
        (wording.accuracy(float("nan"), 0.1), "–"),
        (wording.count(float("nan")), "–"),
        (wording.magnitude(float("inf")), "–"),
        (wording.plain(1234567.0), "1234600"),
        (wording.plain(3.14159), "3.1416"),
        (wording.plain(None), "–"),
        (wording.number("3"), None),
        (wording.number(True), None),
        (wording.number(10**400), None),
        (wording.number(1e31), None),
        (wording.number(-3), -3.0),
        (wording.duration(1e300), "–"),
        (wording.printable("a\udcffb"), "a\\udcffb"),
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
