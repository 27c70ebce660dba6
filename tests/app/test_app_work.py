"""From settings to a page, without a server: the same answers as the command's, and an end when one is asked for."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csist.app import page
from csist.app.result import Result, results
from csist.app.scene import Files, Scene, make_scene
from csist.app.settings import Settings
from csist.app.tables import summary
from csist.app.work import Progress, Report, StoppedError, unmix_scene, watched
from csist.checks import InputError
from csist.frames import unmix_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.plots import RESIDUAL_SIGMAS
from csist.targets import Targets

WINDOW = Settings(source="build", count=2, separation_px=0.8, prior="csist-100k", mode="fast", seed=5)
SKY = Sensor(GaussianPSF(1.1), shape=(60, 90), background=50.0, read_noise=2.0)


def silent(_: Progress) -> None:
    pass


def finished(scene: Scene, settings: Settings) -> Result:
    *_, last = results(scene, settings, silent)
    assert last.finished
    return last


def whole(result: Result) -> str:
    """All parts of the page."""
    groups = result.first_groups(0)
    return "".join(
        [
            page.pictures(result),
            page.close_ups(result.group_pictures(0, groups)),
            page.tables(result),
            page.downloads(result, 0, groups),
        ]
    )


@pytest.fixture(scope="module")
def window_result() -> Result:
    settings = Settings(**{**WINDOW.__dict__, "methods": ("continuous", "ista+refine")})
    return finished(make_scene(settings), settings)


@pytest.fixture(scope="module")
def window_page(window_result: Result) -> str:
    return whole(window_result)


@pytest.fixture(scope="module")
def frame_result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A clip of three frames in which one of nine targets moves."""
    path = tmp_path_factory.mktemp("clip") / "clip.npy"
    x, y = np.meshgrid([15.3, 45.7, 75.2], [12.4, 30.1, 48.8])
    frames = []
    for time in range(3):
        moved = np.ravel(x) + np.where(np.arange(9) == 4, 1.5 * time, 0.0)
        frames.append(SKY.observe(Targets(x=moved, y=np.ravel(y), intensity=np.linspace(900, 2500, 9)), time))
    np.save(path, np.stack(frames))
    settings = Settings(source="upload", mode="fast", frames=3)
    return finished(make_scene(settings, Files(path)), settings)


def downloads(html: str) -> dict[str, bytes]:
    links = re.findall(r'download="([^"]+)" href="data:[^,"]+,([^"]+)"', html)
    return {name: base64.b64decode(data) for name, data in links}


def looks(html: str) -> list[dict[str, Any]]:
    """Data of the pictures that can be zoomed."""
    return [json.loads(unescape(text)) for text in re.findall(r"<template>(.*?)</template>", html)]


def heads(html: str) -> list[list[str]]:
    return [re.findall(r"<th [^>]*>(.*?)</th>", part) for part in html.split("<table>")[1:]]


def test_a_page_shows_each_method_and_the_truth(window_page: str) -> None:
    assert re.findall(r"<h3>(.*?)</h3>", window_page) == ["continuous", "ista+refine", "simulated truth"]
    assert window_page.count("<figure>") == 2
    assert all(len(text) > 20 for text in re.findall(r'<img [^>]*alt="([^"]*)"', window_page))
    assert "2 targets reported; of 2 true ones, 2 found within 0.25 px" in window_page
    assert 'href="?source=build' in window_page


def test_methods_stand_in_one_row_with_one_residual_scale(window_page: str) -> None:
    (picture,) = looks(window_page)
    assert [panel["name"] for panel in picture["panels"]] == ["continuous", "ista+refine"]
    assert {(panel["residual"]["unit"], panel["residual"]["limit"]) for panel in picture["panels"]} == {
        ("σ", RESIDUAL_SIGMAS)
    }
    assert window_page.count('class="csist-row') == 1


def test_the_residual_in_sigma_is_that_of_the_frame() -> None:
    targets = Targets(x=[30.2], y=[20.7], intensity=[900.0])
    image = SKY.observe(targets, 0)
    expected = unmix_frame(image, mode="fast")
    scene = Scene("sky.npy", image[None])
    result = finished(scene, Settings(mode="fast"))
    (picture,) = looks(page.pictures(result))
    shown = np.frombuffer(base64.b64decode(picture["panels"][0]["layers"]["residual"]), "<f4").reshape(picture["shape"])
    assert np.allclose(shown, (image - expected.model()) / expected.noise, atol=1e-4)


def test_columns_say_what_they_are(window_page: str, frame_result: Result) -> None:
    continuous, refined, truth = heads(window_page)
    assert continuous[3:6] == ["error in px", "P(count)", "probability within 0.25 px"]
    assert "P(count)" not in refined and "probability within 0.25 px" in refined
    assert truth == ["x in px", "y in px", "intensity in counts"]
    (frames,) = heads(page.tables(frame_result))
    assert frames[:2] == ["image", "group"] and "track" in frames
    assert "probability of a target" in frames and "error in px" not in frames
    cells = finished(make_scene(WINDOW), Settings(**{**WINDOW.__dict__, "methods": ("ista",)}))
    assert "cell value in counts" in heads(page.tables(cells))[0]


def test_the_error_in_the_table_is_the_distance_to_the_truth(window_result: Result) -> None:
    answer, truth = window_result.answers[0], window_result.scene.truths
    assert truth is not None
    shown = [float(text) for text in re.findall(r"<td>(0\.\d{3})</td><td>[01]\.\d{3}</td><td>[01]\.\d{3}</td>",
                                                page.tables(window_result))][:2]  # fmt: skip
    targets = answer.targets
    nearest = [np.hypot(truth[0].x - x, truth[0].y - y).min() for x, y in zip(targets.x, targets.y, strict=True)]
    assert sorted(shown) == pytest.approx(sorted(nearest), abs=6e-4)


def test_nothing_on_a_page_is_loaded_from_elsewhere(window_page: str) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', window_page)
    assert addresses and all(address.startswith(("data:", "?")) for address in addresses)


def test_downloads_are_a_table_for_each_method_and_a_picture(window_page: str) -> None:
    files = downloads(window_page)
    assert list(files) == ["group-continuous.csv", "group-ista+refine.csv", "group.png"]
    assert Image.open(io.BytesIO(files["group.png"])).size[0] > 1000
    assert len(list(csv.DictReader(files["group-continuous.csv"].decode().splitlines()))) == 2


def test_every_group_can_be_drawn_and_has_the_letter_of_the_table(frame_result: Result) -> None:
    labels = frame_result.groups(0)
    assert len(labels) == 9 and labels[8].startswith("I: ")
    pictures = list(frame_result.group_pictures(0, list(labels)))
    assert [picture.caption[:7] for picture in pictures] == [f"Group {letter}" for letter in "ABCDEFGHI"]
    assert next(frame_result.group_pictures(0, [8])) is pictures[8]  # not drawn again
    letters = re.findall(r'<td class="text">([A-Z])</td>', page.tables(frame_result))
    assert sorted(set(letters)) == list("ABCDEFGHI")


def test_frames_are_linked_into_tracks(frame_result: Result) -> None:
    tracks = frame_result.tracks("continuous")
    assert len(tracks) == 9
    travelled = sorted(float(np.hypot(*(path[-1] - path[0]))) for path in tracks.values())
    assert travelled[-1] == pytest.approx(3.0, abs=0.2) and travelled[-2] < 0.5
    (picture,) = looks(page.pictures(frame_result, 1))
    assert len(picture["panels"][0]["tracks"]) == 9 and picture["panels"][0]["key"] == "0-1"
    assert "9 tracks." in page.tables(frame_result)


def test_a_preview_shows_the_image_before_any_work() -> None:
    scene = make_scene(WINDOW)
    (picture,) = looks(page.preview(scene))
    shown = np.frombuffer(base64.b64decode(picture["image"]), "<f4").reshape(picture["shape"])
    assert np.array_equal(shown, scene.images[0]) and len(picture["truth"]["x"]) == 2
    assert picture["panels"] == [{"key": "preview", "name": "", "layers": {}}]


def test_the_table_is_the_one_that_the_command_writes(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    scene = make_scene(WINDOW)
    np.save(tmp_path / "window.npy", scene.images[0].astype(np.float64))
    options = ("--prior", "csist-100k", "--mode", "fast", "--noise-std", "1")
    assert run("unmix", "window.npy", "-o", "targets.csv", *options)[0] == 0
    settings = Settings(**{**WINDOW.__dict__, "source": "upload", "noise_std": 1.0})
    uploaded = make_scene(settings, Files(tmp_path / "window.npy"))
    mine = page.table_csv(uploaded, list(unmix_scene(uploaded, settings, silent)))
    assert mine == (tmp_path / "targets.csv").read_bytes()


def test_what_is_stated_of_the_sensor_gives_the_rows_of_the_command(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    image = SKY.observe(Targets(x=[20.3, 60.7], y=[30.2, 15.4], intensity=[1500.0, 2000.0]), 3)
    image[5, 5] = 1e5
    np.save(tmp_path / "sky.npy", image)
    error, mask = np.full(image.shape, 2.5), np.zeros(image.shape)
    mask[28:33, 18:23] = 1
    np.save(tmp_path / "error.npy", error)
    np.save(tmp_path / "mask.npy", mask)
    options = (
        "--error", "error.npy", "--mask", "mask.npy", "--psf-sigma", "1.1", "--saturation", "9000",
        "--false-alarm-rate", "1e-6", "--min-score", "0.2", "--mode", "fast",
    )  # fmt: skip
    assert run("unmix", "sky.npy", "-o", "targets.csv", *options)[0] == 0
    settings = Settings(
        source="upload", mode="fast", psf_sigma=1.1, saturation=9000.0, alarm_exponent=-6.0, min_score=0.2
    )
    files = Files(*(tmp_path / f"{name}.npy" for name in ("sky", "error", "mask")))
    scene = make_scene(settings, files)
    answers = list(unmix_scene(scene, settings, silent))
    assert page.table_csv(scene, answers) == (tmp_path / "targets.csv").read_bytes()
    assert len(answers[0].targets) == 1  # the other one is masked


@pytest.mark.parametrize("psf", ["auto", "empirical"])
def test_a_measured_psf_is_for_frames(psf: str) -> None:
    with pytest.raises(InputError, match="measured on frames"):
        make_scene(Settings(source="build", psf=psf))
    x, y = (values.ravel() for values in np.meshgrid(np.arange(12, 110, 14.3), np.arange(11, 80, 13.7)))
    sky = Sensor(GaussianPSF(1.3), shape=(90, 120), background=50.0, read_noise=1.0)
    scene = Scene("sky", sky.observe(Targets(x=x, y=y, intensity=np.full(x.size, 5000.0)), 1)[None])
    (answer,) = unmix_scene(scene, Settings(psf=psf, mode="fast"), silent)
    assert len(answer.targets) == x.size


def test_the_posterior_is_drawn_from() -> None:
    (answer,) = unmix_scene(make_scene(WINDOW), WINDOW, silent)
    cloud = answer.view.cloud
    assert cloud is not None and len(cloud) > 100
    assert cloud.mean(axis=0) == pytest.approx([answer.targets.x.mean(), answer.targets.y.mean()], abs=0.05)


def test_a_page_without_a_target() -> None:
    empty = Scene("<b>dark</b>", np.zeros((1, 9, 9)), sensor=make_scene(WINDOW).sensor, noise_std=1.0)
    last = whole(finished(empty, Settings(methods=("ista",))))
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

    def impatient(step: Progress) -> None:
        if "blob" in step.what:
            blobs.append(step.what)
            raise StoppedError

    with pytest.raises(StoppedError):
        list(unmix_scene(make_scene(settings), settings, impatient))
    assert blobs == ["image 0, blob 1 of 1"]


def test_each_method_has_a_progress_of_its_own() -> None:
    settings = Settings(source="benchmark", windows=2, methods=("continuous", "ista"), mode="fast")
    steps: dict[str, list[float]] = {}
    list(unmix_scene(make_scene(settings), settings, lambda step: steps.setdefault(step.method, []).append(step.done)))
    assert steps == {"continuous": [0, 1, 1, 2], "ista": [0, 1, 1, 2]}
    html = page.progress_bars([Progress("a<b", "waiting", 0, 1), Progress("c", "image 1", 1, 2)])
    assert html.count("<progress") == 2 and 'value="1" max="2"' in html and "a&lt;b" in html


def test_summary_counts_groups_where_no_truth_is_known() -> None:
    scene = make_scene(Settings())
    assert summary(scene, []) == "0 targets."


def test_errors_are_text_not_markup() -> None:
    assert "<script>" not in page.complaint("<script>alert(1)</script>")


# --- work that is watched -----------------------------------------------------------------------------------


def test_results_and_progress_arrive_in_order() -> None:
    def work(report: Report) -> Iterator[str]:
        report(Progress("all", "begun", 0, 2))
        yield "one"
        yield "two"

    events = list(watched(work, threading.Event()))
    assert events == [Progress("all", "begun", 0, 2), "one", "two"]


def test_stopping_ends_the_watch_and_then_the_work() -> None:
    stop, ended = threading.Event(), threading.Event()

    def work(report: Report) -> Iterator[str]:
        try:
            while True:
                report(Progress("all", "going on", 0, 1))
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
