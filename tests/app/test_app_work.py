"""From settings to a page, without a server: the same answers as the command's, and an end when one is asked for."""

from __future__ import annotations

import base64
import csv
import io
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csist.app.page import complaint, pages, summary, table_csv
from csist.app.scene import Scene, make_scene
from csist.app.settings import Settings
from csist.app.work import Progress, Report, StoppedError, unmix_scene, watched
from csist.checks import InputError

WINDOW = Settings(source="build", count=2, separation_px=0.8, prior="csist-100k", mode="fast", seed=5)


def silent(_what: str, _done: float, _total: float) -> None:
    pass


@pytest.fixture(scope="module")
def window_page() -> str:
    settings = Settings(**{**WINDOW.__dict__, "methods": ("continuous", "ista+refine")})
    *_, last = pages(make_scene(settings), settings, silent)
    return last


def downloads(html: str) -> dict[str, bytes]:
    links = re.findall(r'download="([^"]+)" href="data:[^,"]+,([^"]+)"', html)
    return {name: base64.b64decode(data) for name, data in links}


def test_a_page_shows_each_method_and_the_truth(window_page: str) -> None:
    assert re.findall(r"<h3>(.*?)</h3>", window_page) == ["continuous", "ista+refine", "simulated truth"]
    assert window_page.count("<figure>") == 2
    assert all(len(text) > 20 for text in re.findall(r'<img [^>]*alt="([^"]*)"', window_page))
    assert "2 targets reported; of 2 true ones, 2 found within 0.25 px" in window_page
    assert 'href="?source=build' in window_page


def test_nothing_on_a_page_is_loaded_from_elsewhere(window_page: str) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', window_page)
    assert addresses and all(address.startswith(("data:", "?")) for address in addresses)


def test_downloads_are_a_table_for_each_method_and_a_picture(window_page: str) -> None:
    files = downloads(window_page)
    assert list(files) == ["group-continuous.csv", "group-ista+refine.csv", "group.png"]
    assert Image.open(io.BytesIO(files["group.png"])).size[0] > 1000
    assert len(list(csv.DictReader(files["group-continuous.csv"].decode().splitlines()))) == 2


def test_the_table_is_the_one_that_the_command_writes(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    scene = make_scene(WINDOW)
    np.save(tmp_path / "window.npy", scene.images[0].astype(np.float64))
    options = ("--prior", "csist-100k", "--mode", "fast", "--noise-std", "1")
    assert run("unmix", "window.npy", "-o", "targets.csv", *options)[0] == 0
    settings = Settings(**{**WINDOW.__dict__, "source": "upload", "noise_std": 1.0})
    uploaded = make_scene(settings, tmp_path / "window.npy")
    mine = table_csv(uploaded, list(unmix_scene(uploaded, settings, silent)))
    assert mine == (tmp_path / "targets.csv").read_bytes()


def test_the_posterior_is_drawn_from() -> None:
    (answer,) = unmix_scene(make_scene(WINDOW), WINDOW, silent)
    cloud = answer.view.cloud
    assert cloud is not None and len(cloud) > 100
    assert cloud.mean(axis=0) == pytest.approx([answer.targets.x.mean(), answer.targets.y.mean()], abs=0.05)


def test_a_page_without_a_target() -> None:
    empty = Scene("<b>dark</b>", np.zeros((1, 9, 9)), sensor=make_scene(WINDOW).sensor, noise_std=1.0)
    settings = Settings(methods=("ista",))
    *_, last = pages(empty, settings, silent)
    assert "0 targets." in last and "<table>" not in last
    assert "<b>dark" not in last and "&lt;b&gt;dark" in last
    table, _picture = downloads(last).values()
    assert table.count(b"\n") == 1  # the header


def test_a_method_that_cannot_do_frames_says_so_before_any_work() -> None:
    settings = Settings(methods=("continuous", "ista"))
    with pytest.raises(InputError, match="use the method 'continuous'"):
        next(unmix_scene(make_scene(settings), settings, silent))


def test_progress_ends_a_frame_between_two_blobs() -> None:
    settings = Settings(mode="fast")
    blobs = []

    def impatient(what: str, done: float, _total: float) -> None:
        if "blob" in what:
            blobs.append(done)
            raise StoppedError

    with pytest.raises(StoppedError):
        list(unmix_scene(make_scene(settings), settings, impatient))
    assert blobs == [1]


def test_summary_counts_groups_where_no_truth_is_known() -> None:
    scene = make_scene(Settings())
    assert summary(scene, []) == "0 targets."


def test_errors_are_text_not_markup() -> None:
    assert "<script>" not in complaint("<script>alert(1)</script>")


# --- work that is watched -----------------------------------------------------------------------------------


def test_results_and_progress_arrive_in_order() -> None:
    def work(report: Report) -> Iterator[str]:
        report("begun", 0, 2)
        yield "one"
        yield "two"

    events = list(watched(work, threading.Event()))
    assert events == [Progress("begun", 0, 2), "one", "two"]


def test_stopping_ends_the_watch_and_then_the_work() -> None:
    stop, ended = threading.Event(), threading.Event()

    def work(report: Report) -> Iterator[str]:
        try:
            while True:
                report("going on", 0, 1)
                yield "more"
        finally:
            ended.set()

    events = watched(work, stop)
    next(events)
    stop.set()
    with pytest.raises(StoppedError):
        list(events)
    assert ended.wait(5.0)


def test_a_watcher_who_leaves_stops_the_work() -> None:
    stop = threading.Event()
    events = watched(lambda report: iter(["one", "two"]), stop)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert stop.is_set()


def test_an_error_of_the_work_is_raised_where_it_is_watched() -> None:
    def work(report: Report) -> Iterator[str]:
        yield "one"
        raise InputError("no good")

    with pytest.raises(InputError, match="no good"):
        list(watched(work, threading.Event()))
