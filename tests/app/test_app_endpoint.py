"""The app as a server for scripts, asked by a plain HTTP client: rows, refusals and what is left on the disk."""

from __future__ import annotations

import csv
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from browsing import running_app
from csist.app.guard import SameOrigin
from csist.app.request import READERS, Options
from csist.app.uploads import LARGEST_UPLOAD_MB
from csist.checks import InputError
from csist.io.writers import TABLE_COLUMNS
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

pytest.importorskip("gradio", reason="needs the extra `app`")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server is ended by a signal")

BOUNDARY = "csist-boundary"
PAIR = Targets(x=[4.6, 6.2], y=[5.1, 5.4], intensity=[900.0, 700.0])
FAST = {"mode": "fast", "noise-std": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a running app, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("server")
    with running_app({"TMPDIR": str(folder)}) as address:
        yield address, folder
    assert [path.name for path in folder.iterdir() if path.name.startswith("csist-app-")] == []


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "window.npy"
    np.save(path, Sensor(GaussianPSF(0.5), read_noise=1.0).observe(PAIR, 3))
    return path


def form(content: bytes | None, name: str = "window.npy", options: dict[str, str] | None = None) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in (options or {}).items()
    ]
    if content is not None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def ask(address: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Send a request; the status and the decoded JSON of the answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=240)
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/api/unmix", body, kind | headers)
    answer = connection.getresponse()
    status, text = answer.status, answer.read()
    connection.close()
    return status, json.loads(text)


def refused(answer: tuple[int, Any], status: int, said: str) -> None:
    assert answer[0] == status, answer
    assert list(answer[1]) == ["error"]
    assert said in answer[1]["error"] and "\n" not in answer[1]["error"] and "request-" not in answer[1]["error"]


def test_the_rows_are_those_of_the_command(
    server: tuple[str, Path], window: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, rows = ask(server[0], form(window.read_bytes(), options=FAST))
    assert status == 200 and rows
    assert all(tuple(row) == TABLE_COLUMNS for row in rows)
    options = ("--mode", "fast", "--noise-std", "1")
    assert run("unmix", str(window), "-o", "targets.csv", *options)[0] == 0
    with (tmp_path / "targets.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows] == expected


def test_a_frame_and_its_least_score(server: tuple[str, Path]) -> None:
    frame = Path(__file__).parents[2] / "src/csist/data/airplane_clear_sky.png"
    status, rows = ask(server[0], form(frame.read_bytes(), frame.name, {"mode": "fast"}))
    assert status == 200 and len(rows) == 1
    assert rows[0]["image"] == frame.name and abs(rows[0]["x"] - 133) < 3
    options = {"mode": "fast", "min-score": str(rows[0]["score"] + 1e-6)}
    assert ask(server[0], form(frame.read_bytes(), frame.name, options)) == (200, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": "/etc/passwd"}, "unknown option 'weights'"),
        ({"prior": "/etc/passwd"}, "prior must be one of flat, csist-100k"),
        ({"psf": "psf.npy"}, "psf must be one of auto, empirical"),
        ({"noise-std": "loud"}, "noise-std must be a finite number, got 'loud'"),
        ({"gain": "0"}, "gain"),
        ({"method": "no-such"}, "method must be one of continuous"),
        ({"min-score": "2"}, "min-score must be between 0 and 1"),
        ({"mask-nan": "maybe"}, "mask-nan must be one of true, false"),
    ],
)
def test_a_bad_option_is_refused_by_name(
    server: tuple[str, Path], window: Path, options: dict[str, str], said: str
) -> None:
    refused(ask(server[0], form(window.read_bytes(), options=options)), 400, said)


def test_a_form_without_a_usable_file_is_refused(server: tuple[str, Path], window: Path) -> None:
    address = server[0]
    refused(ask(address, form(None)), 400, "one file")
    refused(ask(address, b"{}", **{"Content-Type": "application/json"}), 400, "multipart/form-data")
    refused(ask(address, b"nonsense"), 400, "")
    refused(ask(address, form(window.read_bytes(), name="")), 400, "")
    refused(ask(address, form(b"<svg/>", "picture.svg")), 422, "cannot read picture.svg")
    refused(ask(address, form(b"<svg/>", "lie.png")), 422, "cannot read lie.png")
    refused(ask(address, form(window.read_bytes(), "lie.fits")), 422, "cannot read lie.fits")
    refused(ask(address, form(window.read_bytes(), "../../escape.npy.txt")), 422, "cannot read escape.npy.txt")


def test_an_image_that_a_method_cannot_unmix_is_refused(server: tuple[str, Path], window: Path) -> None:
    refused(ask(server[0], form(window.read_bytes(), options={"method": "ista", "mode": "fast"})), 422, "mode")
    frame = Path(__file__).parents[2] / "src/csist/data/airplane_clear_sky.png"
    refused(ask(server[0], form(frame.read_bytes(), frame.name, {"method": "ista"})), 422, "method 'continuous'")


def test_a_file_above_the_limits_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    address = server[0]
    large = b"\0" * ((LARGEST_UPLOAD_MB + 1) * 2**20)

    def pieces() -> Iterator[bytes]:
        """A file whose length is not stated."""
        yield form(b"", "large.npy").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        for _ in range(LARGEST_UPLOAD_MB + 1):
            yield large[: 2**20]

    for body in (form(large, "large.npy"), pieces()):
        # The server may close the connection before the whole file is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            refused(ask(address, body), 413, f"larger than {LARGEST_UPLOAD_MB} MB")
    np.lib.format.open_memmap(tmp_path / "wide.npy", "w+", np.uint8, (4, 3000, 3000))
    refused(ask(address, form((tmp_path / "wide.npy").read_bytes(), "wide.npy")), 413, "million pixels")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:7860"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_other_web_pages_are_refused(server: tuple[str, Path], window: Path, headers: dict[str, str]) -> None:
    refused(ask(server[0], form(window.read_bytes(), options=FAST), **headers), 403, "")


def test_the_own_page_is_no_other_one(server: tuple[str, Path], window: Path) -> None:
    assert ask(server[0], form(window.read_bytes(), options=FAST), Origin=server[0])[0] == 200


def test_a_host_is_checked_where_only_this_machine_is_served() -> None:
    async def nothing(*_: Any) -> None:
        pass

    assert SameOrigin(nothing, local=False).refusal("camera.lan:7860", None) == ""
    assert SameOrigin(nothing, local=False).refusal("camera.lan:7860", "http://camera.lan") != ""
    assert SameOrigin(nothing, local=True).refusal("[::1]:7860", "http://[::1]:7860") == ""
    assert SameOrigin(nothing, local=True).refusal("", None) != ""


def test_eight_scripts_at_once_get_their_own_rows_and_leave_nothing(server: tuple[str, Path]) -> None:
    address, folder = server
    before = sorted(path.name for path in folder.rglob("request-*"))

    def one(number: int) -> None:
        truth = Targets(x=[4.0 + 0.4 * number], y=[5.0], intensity=[500.0])
        path = folder / f"mine-{number}.npy"
        np.save(path, Sensor(GaussianPSF(0.5), read_noise=1.0).observe(truth, number))
        for _ in range(3):
            status, rows = ask(address, form(path.read_bytes(), path.name, FAST))
            assert status == 200 and {row["image"] for row in rows} == {path.name}
            assert rows[0]["x"] == pytest.approx(truth.x[0], abs=0.1)

    with ThreadPoolExecutor(8) as users:
        list(users.map(one, range(8)))
    until = time.monotonic() + 10
    while sorted(path.name for path in folder.rglob("request-*")) != before and time.monotonic() < until:
        time.sleep(0.1)
    assert sorted(path.name for path in folder.rglob("request-*")) == before == []


def test_options_are_named_as_on_the_command_line(run: Callable[..., tuple[int, str, str]]) -> None:
    from typer.main import get_command

    from csist.cli.entry import app

    command: Any = get_command(app)
    known = {flag for each in command.commands["unmix"].params for flag in each.opts}
    assert {f"--{name}" for name in READERS} <= known


def test_two_psfs_contradict_each_other() -> None:
    with pytest.raises(InputError, match="not both"):
        Options.read({"psf": "auto", "psf-sigma": "1"})
