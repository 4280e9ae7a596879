"""The page of a search that goes on: who may ask for what, what it costs, and that nothing else is shown."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnas_fast.cli.options import ConfigError
from pnas_fast.watch import renewal, serving
from pnas_fast.watch.__main__ import main
from pnas_fast.watch.app import App
from pnas_fast.watch.renewal import Document, Renewal, Shown, fault_documents, report_documents
from pnas_fast.watch.serving import LOOPBACK_NAMES, Address
from report_runs import HOSTILE, make_run

PAGE = Document("text/html; charset=utf-8", b"the page", "default-src 'none'")
DOCUMENTS = {
    "": PAGE,
    "trials.csv": Document("text/csv", b"1,2"),
    "figures/a.svg": Document("image", b"<svg>"),
}
TOKEN = "secret-token"


def shown() -> Shown:
    return Shown(DOCUMENTS, 0.0, "")


LOCAL = App(shown, LOOPBACK_NAMES)
ABROAD = App(shown, {*LOOPBACK_NAMES, "my.machine"}, numbers=True, token=TOKEN)


def asked(app: App, path: str, method: str = "GET", **more: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer, which is one by the rules of WSGI."""
    environment: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "localhost:8008"}
    environment |= more
    setup_testing_defaults(environment)
    environment |= {"SCRIPT_NAME": "", "QUERY_STRING": ""}
    told: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        told.extend((status, headers))

    answer = validator(app)(environment, start)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]
    status, headers = told
    return int(status[:3]), body, dict(headers)


@pytest.mark.parametrize("path", ["/", *(f"/{name}" for name in DOCUMENTS)])
def test_what_is_in_the_list_is_shown(path: str) -> None:
    status, body, headers = asked(LOCAL, path)
    assert (status, body) == (200, DOCUMENTS[path[1:]].content)
    assert asked(LOCAL, path, "HEAD") == (200, b"", headers)


PATHS = [
    "/../config.json", "/figures/../config.json", "//etc/passwd", "/etc/passwd", "/config.json", "/.",
    "/trials.sqlite", "/report.html", "/figures", "/figures/", "/figures/a.svg/", "/figures/a.svg\0",
    "/%2e%2e/x", "/figures\\a.svg", "/trials.csv/../trials.csv", "/TRIALS.CSV", "/\xff",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_nothing_else_is(path: str) -> None:
    assert asked(LOCAL, path)[0] == 404


@given(st.text(st.characters(max_codepoint=255)))
def test_no_other_path_leads_anywhere(path: str) -> None:
    status, body, _ = asked(LOCAL, f"/{path}")
    assert body == DOCUMENTS[path].content if path in DOCUMENTS else status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_nothing_can_be_done_but_look(method: str, path: str) -> None:
    status, _, headers = asked(LOCAL, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


HOSTS = ["localhost", "LOCALHOST:99", "127.0.0.1", "127.0.0.1:8008", "[::1]:8008", "localhost.:8008"]
NUMBERS = ["192.168.0.7:8008", "[fe80::1]:1"]
OTHERS = [
    "evil.example", "localhost.evil.example", "evil.example:8008", "a@localhost@evil.example", "", "[::1",
    "localhost, evil.example", "127.0.0.1.evil.example", "2130706433x",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_the_machine_is_known_by_its_own_names(host: str) -> None:
    assert asked(LOCAL, "/", HTTP_HOST=host)[0] == 200


@pytest.mark.parametrize("host", [*OTHERS, *NUMBERS, "my.machine"])
def test_and_by_no_name_that_was_made_to_lead_here(host: str) -> None:
    status, body, _ = asked(LOCAL, "/", HTTP_HOST=host)
    assert status == 421
    assert body != PAGE.content


def test_abroad_numbers_and_its_own_name_will_do() -> None:
    for host in [*HOSTS, *NUMBERS, "my.machine:80"]:
        assert asked(ABROAD, f"/{TOKEN}/", HTTP_HOST=host)[0] == 200
    for host in OTHERS:
        assert asked(ABROAD, f"/{TOKEN}/", HTTP_HOST=host)[0] == 421


@pytest.mark.parametrize(
    "path", ["/", "/trials.csv", "/secret-toke/", "/secret-token2/", "/x/secret-token/", "/\xe4/"]
)
def test_without_its_token_nothing_is_shown(path: str) -> None:
    status, body, _ = asked(ABROAD, path)
    assert status == 403
    assert TOKEN.encode() not in body


def test_with_its_token_everything_is() -> None:
    assert asked(ABROAD, f"/{TOKEN}/")[1] == PAGE.content
    assert asked(ABROAD, f"/{TOKEN}/trials.csv")[1] == b"1,2"
    assert asked(ABROAD, f"/{TOKEN}/../x")[0] == 404
    status, _, headers = asked(ABROAD, f"/{TOKEN}")
    assert (status, headers["Location"]) == (308, f"/{TOKEN}/")


def test_what_a_browser_has_is_not_sent_again() -> None:
    tag = asked(LOCAL, "/")[2]["ETag"]
    for held in (tag, f'"other", W/{tag}'):
        status, body, headers = asked(LOCAL, "/", HTTP_IF_NONE_MATCH=held)
        assert (status, body, headers["ETag"]) == (304, b"", tag)
    assert asked(LOCAL, "/", HTTP_IF_NONE_MATCH='"other"')[0] == 200
    assert asked(LOCAL, "/trials.csv")[2]["ETag"] != tag


@pytest.mark.parametrize(("path", "host"), [("/", "localhost"), ("/x", "localhost"), ("/", "evil.example")])
def test_every_answer_keeps_browsers_from_doing_more(path: str, host: str) -> None:
    headers = asked(LOCAL, path, HTTP_HOST=host)[2]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "private, no-cache"


def test_a_fault_is_said_as_text() -> None:
    app = App(lambda: Shown(fault_documents(HOSTILE), 0.0, HOSTILE), LOOPBACK_NAMES)
    status, body, _ = asked(app, "/")
    assert status == 503
    assert b"<script" not in body


# What it costs.


class Reports:
    """Reports that count themselves, and wait for the test if it wants that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.made, self.folder = 0, folder
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        monkeypatch.setattr(renewal, "report_documents", self.make)

    def make(self, folder: Path) -> dict[str, Document]:
        if not folder.is_relative_to(self.folder):  # a thread that an earlier test has left
            return {"": Document("text/html", b"")}
        self.may_go_on.wait()
        self.made += 1
        return {"": Document("text/html", str(self.made).encode())}


def content(renewed: Renewal) -> bytes:
    return renewed.look().documents[""].content


def settled(renewed: Renewal, expected: bytes) -> None:
    """Look until something is shown: a thread makes it."""
    while content(renewed) != expected:
        pass


def test_a_report_is_made_when_somebody_looks_and_something_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, renewed = Reports(monkeypatch, tmp_path), Renewal(tmp_path, pause=0.0)
    assert reports.made == 0
    assert [content(renewed) for _ in range(9)] == [b"1"] * 9
    (tmp_path / "trials.sqlite-wal").write_bytes(b"more")
    settled(renewed, b"2")
    assert [content(renewed) for _ in range(9)] == [b"2"] * 9
    assert reports.made == 2


def test_looks_are_answered_with_the_last_report_while_the_next_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, renewed = Reports(monkeypatch, tmp_path), Renewal(tmp_path, pause=0.0)
    assert content(renewed) == b"1"
    reports.may_go_on.clear()
    for number in range(9):
        (tmp_path / "trials.sqlite").write_bytes(b"x" * number)
        assert content(renewed) == b"1"
    reports.may_go_on.set()
    settled(renewed, b"2")


def test_a_report_lasts_for_a_while_and_longer_where_it_took_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, renewed = Reports(monkeypatch, tmp_path), Renewal(tmp_path, pause=1e6)
    assert content(renewed) == b"1"
    (tmp_path / "trials.sqlite").write_bytes(b"x")
    assert content(renewed) == b"1"
    monkeypatch.setattr(renewal.time, "thread_time", iter((5.0, 7e5)).__next__)  # type: ignore[attr-defined]
    long = Renewal(tmp_path)
    assert content(long) == b"2"
    (tmp_path / "trials.sqlite").write_bytes(b"xx")
    assert content(long) == b"2"
    assert reports.made == 2


def test_a_run_that_cannot_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = Renewal(tmp_path / "run", pause=0.0)
    assert renewed.look().fault.endswith("expected the folder of a search")
    Reports(monkeypatch, tmp_path)
    settled(renewed, b"1")
    assert not renewed.look().fault


def test_a_defect_is_a_line_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> dict[str, Document]:
        raise KeyError("a\nb")

    monkeypatch.setattr(renewal, "report_documents", fail)
    assert "\n" not in Renewal(tmp_path, pause=0.0).look().fault
    assert "KeyError" in capsys.readouterr().err


# Where it is shown.


def test_loopback_needs_no_token_and_everything_else_does() -> None:
    local, abroad = Address(port=0), Address("0.0.0.0", 0)
    with local.socket, abroad.socket:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", local.url)
        assert re.fullmatch(rf"http://{re.escape(socket.gethostname())}:\d+/[\w-]{{43}}/", abroad.url)
        assert asked(abroad.app(shown), "/")[0] == 403
        assert asked(abroad.app(shown), f"/{abroad.token}/")[0] == 200


def test_a_port_that_is_taken_is_one_line_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^cannot listen on 127\.0\.0\.1, port {port} \(.*choose another"
        ):
            Address(port=port)
        monkeypatch.setattr(serving, "PORT", port)
        with Address(port=port).socket as other:
            assert other.getsockname()[1] not in (0, port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "", "a" * 99, "\xfc..\x00"])
def test_a_host_that_is_none_is_one_line(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--host", host])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "65536", "x", "٣", "1" * 99])
def test_a_port_that_is_none_is_one_line(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", f"--port={port}"])
    assert "allowed is a port from 0 to 65535" in capsys.readouterr().err


def test_without_the_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(ConfigError, match=r"install it with: pip install 'pnas_fast\[live\]'$"):
        Address()


SERVER = """
import sys
from pnas_fast.watch.renewal import Document, Shown
from pnas_fast.watch.serving import Address, serve

documents = {"": Document("text/html", b"x" * 4_000_000), "trials.csv": Document("text/csv", b"1,2")}
shown = Shown(documents, 0.0, "")
address = Address(port=0)
print(address.socket.getsockname()[1], flush=True)
serve(address.app(lambda: shown), address.socket)
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server with a page of 4 MB."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_readers_that_do_not_read_keep_nobody_from_reading(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    try:
        for one in slow:
            one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for one in slow[:10]:
            assert one.recv(10) == b"HTTP/1.1 2"  # begun, and then left alone
        for _ in range(20):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/trials.csv") as answer:
                assert answer.read() == b"1,2"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert len(answer.read()) == 4_000_000
    finally:
        for one in slow:
            one.close()


@pytest.mark.parametrize(
    "path", ["/../trials.csv", "/%2e%2e/trials.csv", "/..%2ftrials.csv", "/%00", "/%ff%fe"]
)
def test_paths_are_as_harmless_on_the_wire(port: int, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", "localhost")
    connection.endheaders()
    assert connection.getresponse().status == 404
    connection.close()


def test_what_is_sent_is_refused_and_not_kept(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/", b"x" * 100)
    assert connection.getresponse().status == 405
    connection.close()
    connection = HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_request_that_names_no_host_or_two_is_refused(port: int) -> None:
    for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert one.recv(12) in (b"HTTP/1.1 421", b"HTTP/1.1 400")


# A run.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("watched") / "run", [9, 3], failures=0.3)


@pytest.mark.slow
def test_a_run_is_read_and_nothing_is_written(run: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return [(str(path), path.stat().st_mtime_ns) for path in sorted(run.rglob("*"))]

    before = state()
    documents = report_documents(run)
    assert state() == before
    assert {"", "trials.csv", "figures/cell_1.svg", "figures/progress.svg"} <= documents.keys()
    page = documents[""].content.decode()
    assert "<script>alert" not in page
    # Every link leads somewhere.
    assert {*re.findall(r'href="([^"#]+)"', page)} <= documents.keys()


@pytest.mark.slow
def test_the_command_shows_a_run_until_it_is_interrupted(run: Path) -> None:
    command = [sys.executable, "-m", "pnas_fast.watch", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().removeprefix(f"{run}: ").strip()
        with urllib.request.urlopen(url) as answer:
            assert b"This page renews itself" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


BESIDE = """
import sys, time
from pathlib import Path
from pnas_fast.watch.beside import shown_beside

with shown_beside(Path(sys.argv[1]), 0) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def is_served(url: str) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_the_page_beside_a_search_is_there_before_the_run_and_ends_with_the_search(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BESIDE, str(tmp_path / "run")]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with pytest.raises(urllib.error.HTTPError, match="503") as answer:
            urllib.request.urlopen(url)
        answer.value.close()
        process.kill()
    while is_served(url):
        pass
