"""The page of a search that goes on, in a browser: it renews itself, and stays as people left it."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from pnas_fast.protocols import Measurement, Proposal
from pnas_fast.runs.store import TrialStore
from pnas_fast.space import Cell
from report_runs import HOSTILE, VALIDATION_IMAGES, distinct_cells, make_run, random_measurement

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine"),
]

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--window-size=1280,900",
]  # fmt: skip

EVIL = f"{HOSTILE}<img src=x onerror=\"document.title='alien'\">"

PROBE = """
const say = (what) => fetch("/said", {method: "POST", body: JSON.stringify(what)});
const until = (is) => new Promise((go) => {
  const timer = setInterval(() => { if (is()) { clearInterval(timer); go(); } }, 20);
});
const heads = () => [...document.querySelectorAll("#trial-table th")];
const find = () => document.getElementById("find");
const state = () => ({
  best: document.querySelector("h1").textContent,
  trials: document.querySelector("#trials h2").textContent,
  title: document.title,
  mark: window.mark,
  kept: document.getElementById("configuration").mark === true,
  open: document.querySelector("details").open,
  top: document.getElementById("trials").getBoundingClientRect().top,
  scrolled: window.scrollY,
  active: document.activeElement.id,
  selected: [find().selectionStart, find().selectionEnd],
  words: find().value,
  sorted: heads().filter((one) => one.hasAttribute("aria-sort")).map((one) => one.textContent),
  cells: [...document.querySelectorAll("#trial-table tbody tr")].map((row) => row.cells[2].textContent),
  found: document.getElementById("found").textContent,
  width: window.innerWidth,
  page: document.documentElement.scrollWidth,
  images: document.querySelectorAll("img").length,
  live: document.getElementById("live").textContent,
});
window.addEventListener("load", async () => {
  await say(state());
  window.mark = "not loaded again";
  document.getElementById("configuration").mark = true;
  document.querySelector("details").open = true;
  heads().find((one) => one.textContent === "parameters").querySelector("button").click();
  find().value = "identity";
  find().dispatchEvent(new Event("input"));
  document.getElementById("trials").scrollIntoView();
  find().focus({preventScroll: true});
  find().setSelectionRange(2, 5);
  const before = state();
  await say(before);
  await until(() => state().trials === "All 42 trials");  // the store may be read before all are there
  await until(() => state().live !== before.live);
  await say(state());
});
"""

SERVER = """
import re, sys
from pathlib import Path
from pnas_fast.watch.renewal import Renewal
from pnas_fast.watch.serving import Address, serve

run, probe = sys.argv[1:]
address = Address(port=0)
app = address.app(Renewal(Path(run), pause=0.0).look)

def tell(line):
    print(line, flush=True)

def page(start, *parts):
    start("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [part.encode() for part in parts]

def probed(environment, start):
    path = environment["PATH_INFO"]
    if path == "/said":
        tell(environment["wsgi.input"].read().decode())
        return page(start)
    if path == "/frame":
        return page(start, '<iframe style="width: 390px; height: 800px; border: 0" src="/"></iframe>')
    if path != "/" or not probe:
        if path == "/":
            tell('{"held": "%s"}' % environment.get("HTTP_IF_NONE_MATCH", "").strip('"'))
        return app(environment, start)

    def looser(status, headers):
        shut = ("Content-Security-Policy", "Content-Length")
        start(status, [(name, value) for name, value in headers if name not in shut])

    return [
        re.sub(b'<meta http-equiv="Content-Security-Policy"[^>]*>', b"", part)
        .replace(b"</body>", b"<script>%s</script></body>" % probe.encode())
        for part in app(environment, looser)
    ]

tell(address.url)
serve(probed, address.socket)
"""


@contextmanager
def visited(run: Path, folder: Path, probe: str, path: str = "") -> Iterator[IO[str]]:
    """A browser at a page of a server, whose lines are what the page says."""
    assert BROWSER is not None
    server = [sys.executable, "-c", SERVER, str(run), probe]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        url = served.stdout.readline().strip()
        command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"{url}{path}"]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **quiet) as browser:
            try:
                yield served.stdout
            finally:
                browser.kill()
                served.kill()


def heard(lines: IO[str]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(lines.readline())
    return said


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", [24, 6], validation_images=VALIDATION_IMAGES)


def go_on(run: Path, count: int) -> None:
    """So many more children; one fails, with words that are made to do harm, and one is the best."""
    generator = random.Random("more")
    with TrialStore(run / "trials.sqlite", write=True) as store:
        number = len(store.trials())
        for more, text in enumerate(distinct_cells(3, count, generator)):
            proposal = Proposal(Cell.parse(text), 2, note={"level": 3, "predicted": 0.5})
            measurement = random_measurement(more, False, generator)
            if more == 0:
                measurement = Measurement("failed", measurement.values, EVIL)
            elif more == 1:
                measurement = Measurement("done", {**measurement.values, "accuracy": 0.9999})
            store.propose(number + more, [proposal], "test", "progressive")
            store.add(proposal.key("test"), measurement)


def test_a_page_renews_itself_and_stays_as_people_left_it(run: Path, tmp_path: Path) -> None:
    with visited(run, tmp_path, PROBE) as lines:
        first, before = heard(lines), heard(lines)
        go_on(run, 12)
        after = heard(lines)
    assert (first["trials"], after["trials"]) == ("All 30 trials", "All 42 trials")
    assert after["best"].startswith("100.0 %")
    assert after["title"].startswith("100.0 %")
    assert after["images"] == 0
    assert after["mark"] == "not loaded again"
    assert after["kept"]
    assert before["scrolled"] > 0
    assert abs(after["top"] - before["top"]) <= 1
    assert after["scrolled"] != before["scrolled"], "nothing above has grown: a test of nothing"
    for name in ("open", "active", "selected", "words", "sorted"):
        assert after[name] == before[name], name
    assert (after["active"], after["selected"], after["sorted"]) == ("find", [2, 5], ["parameters"])
    assert before["found"].endswith(" of 30")
    assert after["found"].endswith(" of 42")
    assert all("identity" in cell for cell in after["cells"])


def test_the_page_as_it_is_may_renew_itself_and_do_nothing_else(run: Path, tmp_path: Path) -> None:
    with visited(run, tmp_path, "") as lines:
        assert heard(lines) == {"held": ""}
        held = heard(lines)["held"]
        assert held
        go_on(run, 3)
        while heard(lines)["held"] == held:
            pass


def test_nothing_sticks_out_of_a_telephone(run: Path, tmp_path: Path) -> None:
    go_on(run, 3)
    with visited(run, tmp_path, PROBE, "frame") as lines:
        said = heard(lines)
    assert said["width"] == 390
    assert said["page"] <= 390
    assert said["images"] == 0
