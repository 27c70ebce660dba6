"""The app as a server, asked by a plain HTTP client: foreign files, false uploads, and what a killed app leaves."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import pytest

from browsing import CHROMIUM, FLAGS, free_port, running_app
from csist.app.uploads import LARGEST_UPLOAD_MB
from csist.app.workspace import LOCK, PREFIX, remove_abandoned, workspace

pytest.importorskip("gradio", reason="needs the extra `app`")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server is ended by a signal")

BOUNDARY = "csist-boundary"
SECRET = b"only the owner may read this"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a running app, and the folder of its temporary files, with a secret beside the app's own."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_bytes(SECRET)
    with running_app({"TMPDIR": str(folder)}) as address:
        yield address, folder


class Answer(NamedTuple):
    """Status, content disposition and content of an answer."""

    status: int
    disposition: str
    content: bytes


def ask(address: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Send a request as it stands: a client's library would tidy up the path."""
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=240)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheader("content-disposition") or "", answer.read())


def upload(address: str, name: str, content: bytes) -> Answer:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
    body = head.encode() + b"Content-Type: image/png\r\n\r\n" + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return ask(address, "POST", "/gradio_api/upload", body, **kind)


def test_files_outside_the_folders_of_the_app_are_refused(server: tuple[str, Path]) -> None:
    address, folder = server
    secret = folder / "secret.txt"
    app = next(folder.glob(f"{PREFIX}*"))
    sources = Path(__file__).parents[2] / "src/csist/app"
    for path in (
        f"/gradio_api/file={secret}",
        f"/gradio_api/file={quote(str(secret), safe='')}",
        f"/gradio_api/file={app}/received/../../secret.txt",
        f"/gradio_api/file={app}/{LOCK}",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../../../etc/passwd",
        f"/gradio_api/file={sources}/server.py",
        "/csist-scripts/../../../../../etc/passwd",
        "/csist-scripts/%2e%2e/server.py",
        "/csist-scripts/server.py",
        "/static/../../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ):
        answer = ask(address, "GET", path)
        assert answer.status in (400, 403, 404, 405), (path, answer.status)
        assert not any(secret in answer.content for secret in (SECRET, b"root:", b"def serve")), path


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium (Debian: apt-get install chromium)")
def test_the_file_of_another_visitor_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright, in the extra `dev`")
    address, folder = server
    source = Path(__file__).parents[2] / "src/csist/data/airplane_clear_sky.png"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        page.locator("#run:enabled").wait_for()
        page.get_by_label("Your own file").check()
        with page.expect_response(
            lambda response: response.request.method == "POST" and "/upload" in response.url
        ) as received:
            page.locator("#drop input[type=file]").set_input_files(source)
        (first,) = received.value.json()
        page.get_by_text("airplane_clear_sky.png: one image").wait_for()
        kept = [path for path in folder.rglob("airplane_clear_sky.png") if path.is_file()]
        assert len(kept) == 1
        for path in (first, kept[0]):
            answer = ask(address, "GET", f"/gradio_api/file={quote(str(path))}")
            assert answer.status in (403, 404), path
            assert source.read_bytes()[:100] not in answer.content
        browser.close()


@pytest.mark.parametrize("header", ["Host", "Origin"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/config"),
        ("GET", "/csist-scripts/pictures.js"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
    ],
)
def test_other_names_and_other_pages_are_refused_everywhere(
    server: tuple[str, Path], header: str, method: str, path: str
) -> None:
    address = server[0]
    foreign = {"Host": "evil.example", "Origin": "http://evil.example"}[header]
    assert ask(address, method, path, b"{}" if method == "POST" else None, **{header: foreign}).status == 403
    own = {"Host": urlsplit(address).netloc, "Origin": address}[header]
    assert ask(address, method, path, b"{}" if method == "POST" else None, **{header: own}).status != 403


def test_an_upload_above_the_limit_is_refused(server: tuple[str, Path]) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the server may close before all is sent
        answer = upload(server[0], "large.png", b"\0" * ((LARGEST_UPLOAD_MB + 1) * 2**20))
        assert 400 <= answer.status < 500, answer.status
    assert not [path for path in server[1].rglob("large.png") if path.stat().st_size > LARGEST_UPLOAD_MB * 2**20]


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "script.js"])
def test_an_upload_is_never_shown_as_a_page(server: tuple[str, Path], name: str) -> None:
    """A file that says it is a picture but holds a script must not run in the browser of whoever opens it."""
    answer = upload(server[0], name, b"<script>alert(1)</script>")
    if answer.status != 200:
        assert 400 <= answer.status < 500
        return
    (path,) = json.loads(answer.content)
    shown = ask(server[0], "GET", f"/gradio_api/file={quote(path)}")
    assert shown.status in (403, 404) or "attachment" in shown.disposition


def test_names_of_uploads_cannot_leave_the_folder(server: tuple[str, Path]) -> None:
    address, folder = server
    for name in ("../../escape.png", "..%2F..%2Fescape.png", f"{folder}/escape.png"):
        upload(address, name, b"x")
    assert all("received" in path.parts for path in folder.parent.rglob("*escape.png"))


def test_nothing_is_left_of_a_killed_app_after_the_next_start(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    port = free_port()
    command = [sys.executable, "-m", "csist", "app", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "http" in process.stdout.readline()
    assert upload(f"http://127.0.0.1:{port}", "mine.png", SECRET).status == 200
    (killed,) = tmp_path.glob(f"{PREFIX}*")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(killed.rglob("mine.png"))
    with running_app({"TMPDIR": str(tmp_path)}):
        assert not killed.exists() and len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    assert not list(tmp_path.rglob("mine.png")) and not list(tmp_path.glob(f"{PREFIX}*"))


def test_work_under_way_does_not_spoil_the_end() -> None:
    # What the interpreter does after its exit functions, killing threads among it, is what must not be reached.
    program = """
import os, sys
from csist.cli import main

class Kept:
    def __del__(self, abort=os.abort):
        abort()

sys.kept = Kept()
sys.exit(main(["app", "--port", sys.argv[1]]))
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(free_port())], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "http://127.0.0.1" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60.0)
    assert process.returncode == 0


def test_the_folder_of_a_running_app_and_a_new_one_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fresh, old = tmp_path / f"{PREFIX}fresh", tmp_path / f"{PREFIX}old"
    fresh.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 3600.0,) * 2)
    (tmp_path / "csist-other").mkdir()
    with workspace() as own:
        with workspace() as second:
            assert own.is_dir() and second.is_dir() and own != second
        remove_abandoned(tmp_path)
        assert own.is_dir() and fresh.is_dir() and not old.exists() and (tmp_path / "csist-other").is_dir()
    assert not own.exists()
