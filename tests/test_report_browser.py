"""The page in a browser: its script runs, finds, sorts and tells; nothing sticks out of a telephone."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from pnas_fast.report.page import write_report
from report_runs import VALIDATION_IMAGES, Page, make_run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine"),
]

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom",
]  # fmt: skip

SCRIPT = """
const said = {};
const rows = () => [...document.querySelectorAll("#trial-table tbody tr")];
const column = (at) => rows().map((row) => row.cells[at].textContent);
const head = (label) => [...document.querySelectorAll("#trial-table th")].findIndex((one) =>
  one.textContent === label);
const click = (label) => document.querySelectorAll("#trial-table th button")[head(label)].click();
const find = document.getElementById("find"), more = document.getElementById("more");
said.first = column(0);
more.click();
said.more = column(0).length;
said.hasMore = !more.hidden;
click("parameters");
said.parameters = column(head("parameters"));
click("parameters");
said.reversed = column(head("parameters"));
find.value = "identity sep7x7";
find.dispatchEvent(new Event("input"));
said.found = column(head("cell"));
find.value = "no such cell";
find.dispatchEvent(new Event("input"));
said.none = rows().length;
find.value = "";
find.dispatchEvent(new Event("input"));

const tip = document.getElementById("tip");
const told = (chart, x, y, type, kind) => {
  const drawings = [...document.querySelectorAll(`#${chart} svg`)];
  const svg = drawings.find((one) => one.getBoundingClientRect().width > 0);
  const path = svg.querySelector("path.dots"), matrix = svg.getScreenCTM();
  const [, a, b] = [...path.getAttribute("d").matchAll(/M(\\S+) (-?[\\d.]+)/g)][7];
  const place = {clientX: matrix.a * a + matrix.e + x, clientY: matrix.d * b + matrix.f + y};
  svg.dispatchEvent(new PointerEvent(type, {...place, pointerType: kind, bubbles: true}));
  return {trial: Number(path.dataset.trials.split(" ")[7]), hidden: tip.hidden, text: tip.textContent};
};
said.hovered = told("search", 0, 0, "pointermove", "mouse");
said.away = told("search", 0, -3000, "pointermove", "mouse");
said.tapped = told("cost", 3, 3, "click", "touch");
document.body.click();
said.closed = tip.hidden;
said.width = window.innerWidth;
said.page = document.documentElement.scrollWidth;
said.wide = [...document.querySelectorAll("main *, header *")].filter((one) => !one.closest("svg")
  && one.getBoundingClientRect().right > window.innerWidth + 1).map((one) => one.outerHTML.slice(0, 99));
said.scrolling = [...document.querySelectorAll(".table, .drawn")]
  .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.closest("section").id);
const result = document.createElement("pre");
result.id = "said";
result.textContent = JSON.stringify(said);
window.parent.document.body.append(result);
"""


def shown(path: Path, profile: Path) -> str:
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900", path.as_uri()]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=200).stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "run"
    write_report(make_run(folder, [136, 24, 16], validation_images=VALIDATION_IMAGES))
    return folder


def asked(run: Path, folder: Path, width: int) -> dict[str, Any]:
    """What `SCRIPT` said in the page, which lets no other script run unless its policy is taken out."""
    source = (run / "report.html").read_text(encoding="utf-8")
    open_page, replaced = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert replaced == 1
    inner = open_page.replace("</body>", f"<script>{SCRIPT}</script></body>")
    # In a frame, since no window is as narrow as a telephone.
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{escape(inner)}"></iframe>'
    path = folder / "page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}</body>', encoding="utf-8")
    found = re.search(r'<pre id="said">(.*?)</pre>', shown(path, folder / "profile"), re.DOTALL)
    assert found is not None
    said: dict[str, Any] = json.loads(unescape(found[1]))
    return said


def test_policy_lets_the_pages_script_run_and_no_other(run: Path, tmp_path: Path) -> None:
    source = (run / "report.html").read_text(encoding="utf-8")
    path = tmp_path / "page.html"
    alien = "<script>document.body.id = 'alien'</script></body>"
    path.write_text(source.replace("</body>", alien), encoding="utf-8")
    text = shown(path, tmp_path / "profile")
    assert 'id="find"' in text
    assert '<p class="find">' in text
    assert 'id="alien"' not in text


def test_table_and_dots(run: Path, tmp_path: Path) -> None:
    said = asked(run, tmp_path, 1280)
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    rows = {row[-1]: row for row in page.table["rows"]}
    assert said["first"] == [str(rank) for rank in range(1, 21)]
    assert (said["more"], said["hasMore"]) == (120, True)
    parameters = sorted(row[4] for row in rows.values())
    assert said["parameters"] == [f"{value:,}" for value in parameters[:20]]
    assert said["reversed"] == [f"{value:,}" for value in parameters[:-21:-1]]
    cells = [row[2] for row in page.table["rows"] if "identity" in row[2] and "sep7x7" in row[2]]
    assert said["none"] == 0
    assert set(said["found"]) <= set(cells)
    assert len(said["found"]) == min(20, len(cells)) > 0
    for told in said["hovered"], said["tapped"]:
        row = rows[told["trial"]]
        assert not told["hidden"]
        assert row[2] in told["text"]
        assert f"{100 * row[1][0]:.2f} ± {100 * row[1][1]:.2f} %" in told["text"]
        assert f"parameters {row[4]:,}" in told["text"]
    assert said["away"]["hidden"]
    assert said["closed"]


def test_nothing_sticks_out_of_a_telephone(run: Path, tmp_path: Path) -> None:
    said = asked(run, tmp_path, 390)
    assert said["width"] == 390
    assert said["page"] <= said["width"]
    assert said["wide"] == []
    assert said["scrolling"] == []


def test_rows_of_the_script_are_written_as_those_of_the_page(run: Path, tmp_path: Path) -> None:
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    text = shown(run / "report.html", tmp_path / "profile")
    assert Page(re.sub(r"(?s)^.*?<html", "<html", text)).rows["trials"][:21] == page.rows["trials"]
