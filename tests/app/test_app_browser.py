"""The app in a real browser: what a user sees, on a desk and on a phone, with mouse and with keys."""

from __future__ import annotations

import csv
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from browsing import CHROMIUM, FLAGS, running_app
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

pytest.importorskip("gradio", reason="needs the extra `app`")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright, in the extra `dev`")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium (Debian: apt-get install chromium)"),
    pytest.mark.skipif(os.name == "nt", reason="the server is ended by a signal"),
]

PATIENCE_MS = 240_000
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 900}

SKY = Sensor(GaussianPSF(1.1), shape=(60, 90), background=50.0, read_noise=2.0)
SPOTS = Targets(x=[20.3, 60.7], y=[30.2, 15.4], intensity=[1500.0, 2000.0])
PAIR = Targets(x=[4.6, 6.2], y=[5.1, 5.4], intensity=[30_000.0, 24_000.0])


@dataclass(frozen=True)
class Server:
    """A running app.

    Args:
        address: of its page.
        folder: where its temporary files lie.
        outgoing: addresses that asked for the outside world.
    """

    address: str
    folder: Path
    outgoing: list[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app as the command starts it; whatever it sends out ends at a listener here."""
    folder = tmp_path_factory.mktemp("server")
    outgoing: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as outside:
        threading.Thread(target=note_connections, args=(outside, outgoing), daemon=True).start()
        proxy = f"http://127.0.0.1:{outside.getsockname()[1]}"
        environment = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
        environment |= {"NO_PROXY": "127.0.0.1,localhost", "TMPDIR": str(folder)}
        with running_app(environment) as address:
            yield Server(address, folder, outgoing)
        assert [path.name for path in folder.iterdir() if path.name.startswith("csist-app-")] == []
        assert outgoing == []


def note_connections(listener: socket.socket, outgoing: list[str]) -> None:
    """Remember who connects, until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            outgoing.append(connection.recv(200).decode(errors="replace"))


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(server: Server, browser: sync_api.Browser) -> Iterator[Callable[..., sync_api.Page]]:
    """Opens the page as a new user; afterwards no user's browser has asked for anything but the app."""
    contexts, addresses, complaints = [], [], []

    def open_page(query: str = "", viewport: dict[str, int] = DESK) -> sync_api.Page:
        context = browser.new_context(viewport=viewport, accept_downloads=True)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        context.on("request", lambda request: addresses.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.address + query)
        page.locator("#run:enabled").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert addresses
    assert [url for url in addresses if not url.startswith((server.address + "/", "data:", "blob:"))] == []
    assert complaints == []


def finished(page: sync_api.Page) -> str:
    """Wait for the end of the work; what the results say."""
    page.locator("#results nav").wait_for()
    page.locator("#status", has_text="Done.").wait_for()
    return page.locator("#results").inner_text()


def drop(page: sync_api.Page, path: Path) -> None:
    page.get_by_label("Your own file").check()
    page.locator("#drop input[type=file]").set_input_files(path)


def frame_file(folder: Path) -> Path:
    path = folder / "sky.png"
    Image.fromarray(SKY.observe(SPOTS, 3).astype(np.uint8)).save(path)
    return path


def window_file(folder: Path) -> Path:
    path = folder / "window.tif"
    sensor = Sensor(GaussianPSF(0.5), read_noise=40.0, background=500.0)
    tifffile.imwrite(path, sensor.observe(PAIR, 4).astype(np.uint16))
    return path


def test_an_example_is_unmixed_shown_and_downloaded(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit()
    assert page.title().startswith("csist")
    page.locator("#run").click()
    assert "1 target in 1 group." in finished(page)
    pictures = page.locator("#results img")
    assert pictures.count() == 2
    assert all(pictures.nth(k).evaluate("image => image.naturalWidth") > 500 for k in range(2))
    assert all(len(str(pictures.nth(k).get_attribute("alt"))) > 20 for k in range(2))
    with page.expect_download() as caught:
        page.get_by_text("Table (CSV)").click()
    assert caught.value.suggested_filename == "airplane_clear_sky.csv"
    caught.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == "airplane_clear_sky.png" and abs(float(row["x"]) - 133) < 3


def test_a_link_restores_the_settings(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&count=3&seed=8&methods=ista&scene_noise=0.5")
    page.get_by_text("Settings restored from the link.").wait_for()
    assert page.get_by_label("Build a group").is_checked()
    page.locator("#run").click()
    finished(page)
    page.wait_for_url(re.compile("source=build&count=3&scene_noise=0.5&seed=8&methods=ista$"))
    assert page.locator("#results td").first.is_visible()


def test_a_link_that_is_wrong_is_answered_in_a_sentence(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?count=99")
    assert "count must be a number from 1 to 6, got 99" in page.get_by_role("alert").inner_text()


def test_a_png_that_is_dropped(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit()
    drop(page, frame_file(tmp_path))
    page.get_by_text("sky.png: one image of 90 x 60 px").wait_for()
    page.locator("#run").click()
    assert "2 targets in 2 groups." in finished(page)


def test_a_16_bit_tiff_keeps_its_counts_and_all_traces_go_with_the_tab(
    visit: Callable[..., sync_api.Page], server: Server, tmp_path: Path
) -> None:
    page = visit("/?background=500&noise_std=40")
    drop(page, window_file(tmp_path))
    page.get_by_text("window.tif: one image of 11 x 11 px").wait_for()
    assert [path.name for path in server.folder.rglob("*.tif")] == ["window.tif"]
    page.locator("#run").click()
    finished(page)
    rows = page.locator("#results tbody tr").all_inner_texts()
    found = sorted(float(row.split("\t")[2].split(" ")[0]) for row in rows)
    assert found == pytest.approx([24_000, 30_000], rel=0.05)
    page.close()
    until = time.monotonic() + 30
    while list(server.folder.rglob("*.tif")) and time.monotonic() < until:
        time.sleep(0.2)
    assert list(server.folder.rglob("*.tif")) == []


def test_garbage_is_refused_in_a_sentence(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(bytes(range(256)) * 10)
    page = visit()
    drop(page, garbage)
    said = page.get_by_role("alert").inner_text()
    assert said.startswith("Cannot read garbage.png") and said.endswith(".")
    assert "Traceback" not in page.content() and "/session-" not in page.content()
    page.locator("#run").click()
    page.get_by_role("alert").filter(has_text="upload one").wait_for()


def test_a_method_that_does_not_fit_is_told_in_a_sentence(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?methods=ista")
    page.locator("#run").click()
    page.get_by_role("alert").filter(has_text="use the method 'continuous'").wait_for()


def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast", viewport=PHONE)
    page.locator("#run").tap() if page.evaluate("'ontouchstart' in window") else page.locator("#run").click()
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#run", "#results img", "#results nav"):
        box = page.locator(name).first.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name


def test_keys_are_enough(visit: Callable[..., sync_api.Page]) -> None:
    page = visit()

    def tab_to(wanted: str) -> None:
        """Press Tab until what has the focus is this, by value, id or text."""
        for _ in range(60):
            page.keyboard.press("Tab")
            names = page.evaluate("(({value, id, innerText}) => [value, id, innerText])(document.activeElement)")
            if wanted in names:
                return
        pytest.fail(f"{wanted} is out of reach of the Tab key")

    for value, name in (("benchmark", "Benchmark windows"), ("build", "Build a group")):
        tab_to(value)
        page.keyboard.press("Space")
        sync_api.expect(page.get_by_label(name)).to_be_checked(timeout=PATIENCE_MS)
    page.get_by_text("Separation of neighbours").wait_for()
    tab_to("run")
    page.keyboard.press("Enter")
    assert "simulated truth" in finished(page)
    tab_to("Link to these settings")


def test_two_users_at_once_see_their_own(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    one, two = visit("/?mode=fast"), visit("/?mode=fast&background=500&noise_std=40")
    drop(one, frame_file(tmp_path))
    drop(two, window_file(tmp_path))
    for page in (one, two):
        page.locator("#held", has_text="one image").wait_for()
    for page in (one, two):
        page.locator("#run").click()
    assert "sky.png: 2 targets" in finished(one)
    assert "window.tif: 2 targets" in finished(two)


def test_cancel_ends_long_work(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    x, y = (generator.uniform(5, 395, 400) for _ in range(2))
    crowded = Sensor(GaussianPSF(1.1), shape=(400, 400), background=50.0, read_noise=2.0)
    image = crowded.observe(Targets(x=x, y=y, intensity=generator.uniform(300, 2000, 400)), 7)
    tifffile.imwrite(tmp_path / "crowded.tif", image.astype(np.uint16))
    page = visit()
    drop(page, tmp_path / "crowded.tif")
    page.get_by_text("crowded.tif: one image").wait_for()
    page.locator("#run").click()
    page.get_by_text("continuous, blob").wait_for()
    page.locator("#cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    page.locator("#run:enabled").wait_for()
    assert page.locator("#results img").count() == 0


# --- pictures that can be zoomed ----------------------------------------------------------------------------


def unmixed(page: sync_api.Page) -> sync_api.Locator:
    """The picture of the first result, drawn."""
    page.locator("#run").click()
    finished(page)
    picture = page.locator(".csist-look").first
    picture.locator(".main-svg").first.wait_for()
    return picture


def ranges(picture: sync_api.Locator) -> list[list[float]]:
    script = "figure => ['xaxis', 'yaxis'].map(name => figure.querySelector('.js-plotly-plot')._fullLayout[name].range)"
    return [[float(end) for end in axis] for axis in picture.evaluate(script)]


def pixel_at(picture: sync_api.Locator, x: float, y: float) -> tuple[float, float]:
    """Where a position of the image, in px, lies on the screen."""
    script = """(figure, [x, y]) => {
      const plot = figure.querySelector('.js-plotly-plot'), box = plot.getBoundingClientRect();
      const {xaxis, yaxis} = plot._fullLayout;
      return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
    }"""
    picture.locator(".csist-look-plot").scroll_into_view_if_needed()
    across, down = picture.evaluate(script, [x, y])
    return float(across), float(down)


def test_a_drag_zooms_and_a_double_click_shows_the_whole_picture_again(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?mode=fast")
    picture = unmixed(page)
    whole = ranges(picture)
    page.mouse.move(*pixel_at(picture, 100, 100))
    page.mouse.down()
    page.mouse.move(*pixel_at(picture, 160, 150), steps=5)
    page.mouse.up()
    left, right = ranges(picture)[0]
    assert whole[0][0] < left < right < whole[0][1] and right - left < 0.5 * (whole[0][1] - whole[0][0])
    page.mouse.dblclick(*pixel_at(picture, 0.5 * (left + right), 125))
    page.wait_for_function(
        "width => {const [a, b] = document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range;"
        "return b - a >= width}",
        arg=0.9 * (whole[0][1] - whole[0][0]),
    )


def test_the_value_under_the_pointer_is_that_of_the_file(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit("/?mode=fast")
    path = frame_file(tmp_path)
    drop(page, path)
    page.get_by_text("sky.png: one image").wait_for()
    picture = unmixed(page)
    said = picture.locator(".csist-look-value")
    for stretch in ("percentile", "log"):
        picture.locator("select[name=stretch]").select_option(stretch)
        for column, row in ((10, 8), (20, 30), (75, 50)):  # the second one is under a marker
            page.mouse.move(*pixel_at(picture, column, row))
            value = int(np.asarray(Image.open(path))[row, column])
            sync_api.expect(said).to_have_text(f"x {column}, y {row}: {value} counts")


def test_stretch_layer_and_colours_change_the_scale(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?mode=fast")
    picture = unmixed(page)

    def scale() -> list[float]:
        script = "figure => (({zmin, zmax}) => [zmin, zmax])(figure.querySelector('.js-plotly-plot')._fullData[0])"
        return [float(end) for end in picture.evaluate(script)]

    narrow = scale()
    picture.locator("select[name=stretch]").select_option("full")
    wide = scale()
    assert wide[0] <= narrow[0] < narrow[1] < wide[1]
    picture.locator("select[name=stretch]").select_option("log")
    assert scale()[0] == 0.0
    picture.locator("select[name=show]").select_option("residual")
    assert scale() == [-5.0, 5.0]
    assert picture.locator("select[name=colours]").is_disabled()
    picture.locator("select[name=show]").select_option("model")
    before = picture.locator(".js-plotly-plot image").get_attribute("href")
    picture.locator("select[name=colours]").select_option("Viridis")
    page.wait_for_function(
        "old => document.querySelector('.js-plotly-plot image').getAttribute('href') !== old", arg=before
    )


def test_a_row_and_its_marker_highlight_each_other(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit("/?mode=fast")
    drop(page, frame_file(tmp_path))
    page.get_by_text("sky.png: one image").wait_for()
    picture = unmixed(page)
    rows = page.locator("#results tr[data-target]")
    places = [[float(cell.split(" ")[0]) for cell in row.split("\t")[:2]] for row in rows.all_inner_texts()]
    assert len(places) == 2

    def ringed() -> list[float]:
        script = "figure => {const {x, y} = figure.querySelector('.js-plotly-plot').data[2]; return [...x, ...y]}"
        return [float(value) for value in picture.evaluate(script)]

    for number, place in enumerate(places):
        rows.nth(number).click()
        assert rows.nth(number).get_attribute("aria-current") == "true"
        assert ringed() == pytest.approx(place, abs=1e-3)
    page.mouse.click(*pixel_at(picture, *places[0]))
    sync_api.expect(rows.nth(0)).to_have_attribute("aria-current", "true")
    assert rows.nth(1).get_attribute("aria-current") is None
    assert ringed() == pytest.approx(places[0], abs=1e-3)
    rows.nth(1).focus()
    page.keyboard.press("Enter")
    assert ringed() == pytest.approx(places[1], abs=1e-3)


def test_methods_share_one_residual_scale(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast&methods=continuous ista ista%2Brefine")
    unmixed(page)
    pictures = page.locator(".csist-look")
    pictures.nth(2).locator(".main-svg").first.wait_for()
    assert pictures.count() == 3
    for number in range(3):
        picture = pictures.nth(number)
        picture.locator("select[name=show]").select_option("residual")
        script = "figure => (({zmin, zmax}) => [zmin, zmax])(figure.querySelector('.js-plotly-plot')._fullData[0])"
        assert picture.evaluate(script) == [-5, 5]


def test_a_picture_fits_on_a_phone(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast", viewport=PHONE)
    picture = unmixed(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = picture.bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
