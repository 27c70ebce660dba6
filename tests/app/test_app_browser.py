"""The app in a real browser: what a user sees, on a desk and on a phone, with mouse and with keys."""

from __future__ import annotations

import csv
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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


def frame_file(folder: Path, name: str = "sky.png") -> Path:
    path = folder / name
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
    assert page.locator("#results .csist-look").count() == 1
    picture = page.locator("#results img")
    assert picture.count() == 1
    assert picture.evaluate("image => image.naturalWidth") > 500
    assert len(str(picture.get_attribute("alt"))) > 20
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
    assert "Targets must be a number from 1 to 6, got 99." in page.get_by_role("alert").inner_text()


@pytest.mark.parametrize("name", ["sky.png", "sky.jpg"])
def test_a_picture_that_is_dropped(visit: Callable[..., sync_api.Page], tmp_path: Path, name: str) -> None:
    page = visit()
    drop(page, frame_file(tmp_path, name))
    page.get_by_text(f"{name}: one image of 90 x 60 px").wait_for()
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

    def kept() -> list[str]:  # `os.walk` passes over folders that are removed meanwhile
        return [name for _, _, names in os.walk(server.folder) for name in names if name.endswith(".tif")]

    until = time.monotonic() + 30
    while kept() and time.monotonic() < until:
        time.sleep(0.2)
    assert kept() == []


def test_garbage_is_refused_in_a_sentence(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(bytes(range(256)) * 10)
    page = visit()
    drop(page, garbage)
    said = page.locator("#status").get_by_role("alert").inner_text()
    assert said.startswith("Cannot read garbage.png") and said.endswith(".")
    assert "Traceback" not in page.content() and "/session-" not in page.content()
    page.locator("#run").click()
    page.get_by_role("alert").filter(has_text="upload one").wait_for()


def test_a_method_that_does_not_fit_is_told_in_a_sentence(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?methods=ista")
    page.locator("#mark").get_by_role("alert").filter(has_text="use the method 'continuous'").wait_for()
    page.locator("#run").click()
    page.locator("#status").get_by_role("alert").filter(has_text="use the method 'continuous'").wait_for()


def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast&methods=continuous ista", viewport=PHONE)
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

    tab_to("example")
    for name in ("Benchmark windows", "Build a group"):
        page.keyboard.press("ArrowDown")
        sync_api.expect(page.get_by_label(name)).to_be_checked(timeout=PATIENCE_MS)
    page.get_by_text("Separation of neighbours").wait_for()
    page.keyboard.press("Tab")  # a choice has one place in the order of Tab
    assert page.evaluate("document.activeElement.type") == "number"
    tab_to("run")
    page.keyboard.press("Enter")
    assert "simulated truth" in finished(page)
    page.wait_for_function("document.activeElement.id === 'run'")
    tab_to("Link to these settings")


def test_arrow_keys_move_where_the_form_is_there_before_its_script(server: Server, browser: sync_api.Browser) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    held: list[sync_api.Route] = []
    page.route("**/form.js", lambda route: held.append(route))
    with page.expect_request("**/form.js"):
        page.goto(server.address, wait_until="commit")
    page.locator("#run:enabled").wait_for()
    page.get_by_text("not unmixed yet").first.wait_for()
    held[0].continue_()
    joined = """[...document.querySelectorAll("fieldset")].every((choice) =>
      new Set([...choice.querySelectorAll("input[type=radio]")].map((input) => input.name)).size === 1)"""
    page.wait_for_function(joined)
    # Gradio renames what has been chosen; the next key may come before anything else changes.
    rename = "document.querySelector('input[value=build]').name = 'radio-99'; await null"
    assert page.evaluate(f"async () => {{ {rename}; return {joined} }}")
    context.close()


def test_a_file_is_chosen_with_keys(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit()
    path = frame_file(tmp_path)
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    page.get_by_label("Build a group").check()
    page.get_by_label("Build a group").focus()
    page.keyboard.press("ArrowDown")
    page.locator("#drop button").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.get_by_text("sky.png: one image of 90 x 60 px").wait_for()


def test_every_stop_of_the_tab_key_is_seen(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit("/?mode=fast")
    drop(page, frame_file(tmp_path))
    page.get_by_text("sky.png: one image").wait_for()
    unmixed(page)
    page.locator("#asked input").wait_for()
    stops, unseen = set(), set()
    for _ in range(60):  # past the end of the page, on to its top
        page.keyboard.press("Tab")
        stop = page.evaluate("document.activeElement.outerHTML.slice(0, 150)")
        stops.add(stop)
        with suppress(sync_api.TimeoutError):  # the outline of some grows in a transition
            page.wait_for_function(
                """() => {
                  const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
                  const seen = outlineStyle === "solid" && parseFloat(outlineWidth) >= 2;
                  return seen || document.activeElement === document.body;
                }""",
                timeout=10_000,
            )
            continue
        unseen.add(stop)
    assert any("upload" in stop for stop in stops) and any("data-target" in stop for stop in stops)
    assert unseen == set()


def test_the_buttons_that_remove_a_choice_name_it(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&methods=ista%2Brefine continuous")
    page.get_by_role("button", name="Remove ista+refine").click()
    page.locator(".token", has_text="ista+refine").wait_for(state="detached")
    assert page.locator(".token-remove[title]").evaluate_all("buttons => buttons.map(each => each.title)")[:1] == [
        "Remove continuous"
    ]


@pytest.mark.parametrize("viewport", [DESK, PHONE])
def test_the_label_of_an_upload_area_is_apart_from_its_text(
    visit: Callable[..., sync_api.Page], viewport: dict[str, int]
) -> None:
    page = visit("/?source=upload&gain=2", viewport=viewport)
    for area in ("#drop", "#map-error", "#map-mask"):
        label = page.locator(f"{area} [data-testid=block-label]").bounding_box()
        icon = page.locator(f"{area} [data-testid=upload-icon]").bounding_box()
        assert label and icon and label["y"] + label["height"] <= icon["y"], area
        text, end = page.locator(f"{area} button").evaluate(
            """button => {
              const range = document.createRange();
              range.selectNode(button.querySelector("[data-testid=upload-text]").lastChild);
              range.setStart(button.querySelector(".or"), 0);
              return [range, button].map((each) => each.getBoundingClientRect().bottom);
            }"""
        )
        assert icon["y"] + icon["height"] < text <= end, area


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
    page.locator("#run").press("Enter")
    page.locator(".csist-progress", has_text="image 0, blob").wait_for()
    page.wait_for_function("document.activeElement.id === 'cancel'")
    page.keyboard.press("Enter")
    page.get_by_text("Cancelled.").wait_for()
    page.wait_for_function("document.activeElement.id === 'run'")
    assert page.locator("#results img").count() == 0


# --- before and after a run ---------------------------------------------------------------------------------


def test_a_file_is_shown_before_any_run(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit()
    page.locator("#preview .main-svg").first.wait_for()  # the example
    path = frame_file(tmp_path)
    drop(page, path)
    picture = page.locator("#preview .csist-look", has_text="sky.png, not unmixed yet")
    picture.locator(".main-svg").first.wait_for()
    page.mouse.move(*pixel_at(picture, 61, 15))
    value = int(np.asarray(Image.open(path))[15, 61])
    sync_api.expect(picture.locator(".csist-look-value")).to_have_text(f"x 61, y 15: {value} counts")
    assert picture.locator("select[name=show]").count() == 0
    page.locator("#run").click()
    finished(page)
    assert page.locator("#preview .csist-look").count() == 0


def test_a_simulated_group_follows_its_sliders(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build")
    script = "figure => figure.querySelector('.js-plotly-plot').data.at(-1).x.length"
    picture = page.locator("#preview .csist-look")
    picture.locator(".main-svg").first.wait_for()
    assert picture.evaluate(script) == 2
    page.get_by_label("number input for Targets").fill("4")
    page.wait_for_function(
        "document.querySelector('#preview .js-plotly-plot')?.data?.at(-1).x.length === 4", timeout=PATIENCE_MS
    )


def test_results_of_earlier_settings_are_marked(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit("/?mode=fast")
    page.locator("#run").click()
    finished(page)
    mark = page.locator("#mark .csist-old")
    assert mark.count() == 0
    page.get_by_label("csist-100k").check()
    mark.wait_for()
    assert "earlier" in mark.inner_text()
    page.wait_for_function("getComputedStyle(document.querySelector('#results')).opacity < 0.9")
    page.get_by_label("flat").check()
    mark.wait_for(state="detached")
    drop(page, frame_file(tmp_path))
    mark.wait_for()
    page.locator("#run").click()
    page.locator("#results", has_text="2 targets").wait_for()  # "Done." of the first run may still stand there
    mark.wait_for(state="detached")


def test_sections_with_other_values_than_the_defaults_are_open(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?gain=2&psf=elliptical&psf_sigma=0.6&psf_sigma_y=0.8")
    assert page.get_by_label("Gain in electrons per count").is_visible()
    assert page.get_by_label("Second sigma in px").input_value() == "0.8"
    assert not page.get_by_label("Minimum score").first.is_visible()
    page.get_by_label("Measured shape").check()
    page.get_by_label("PSF sigma in px").wait_for(state="hidden")


def test_a_value_out_of_range_is_named_by_its_label(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?noise_std=1")
    page.get_by_label("Noise of a pixel in counts").fill("-3")
    page.locator("#mark").get_by_role("alert").filter(has_text="Noise of a pixel in counts must be a number").wait_for()
    page.locator("#run").click()
    said = page.locator("#status").get_by_role("alert")
    said.wait_for()
    assert said.inner_text() == "Noise of a pixel in counts must be a number from 0 to 1e+06, got -3."


def test_methods_that_cannot_unmix_frames_are_disabled_with_the_reason(visit: Callable[..., sync_api.Page]) -> None:
    page = visit()
    page.locator("#preview .csist-look").wait_for()
    page.locator("#methods input").click()
    option = page.get_by_role("option").filter(has_text="ista+refine").first
    assert "frames exceed 16 px, windows only" in option.inner_text()
    assert option.evaluate("option => getComputedStyle(option).pointerEvents") == "none"
    page.locator("#methods input").fill("ista+refine")  # the first option that matches is the active one
    page.wait_for_function(
        """() => {
          const active = document.querySelector("#methods input").getAttribute("aria-activedescendant");
          return active && document.getElementById(active)?.getAttribute("aria-disabled") === "true";
        }"""
    )
    page.keyboard.press("Enter")
    assert page.locator("#methods .token").all_inner_texts() == ["continuous"]
    page.keyboard.press("Escape")
    page.get_by_label("Build a group").check()
    page.locator("#preview", has_text="group, not unmixed yet").wait_for()
    page.locator("#methods input").click()
    page.get_by_role("option").filter(has_text="ista+refine").first.click()
    page.locator("#run").click()
    finished(page)
    assert page.locator("#results h3").all_inner_texts() == ["continuous", "ista+refine", "simulated truth"]


def test_maps_and_threshold_reach_the_solver(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    mask = np.zeros(SKY.shape)
    mask[28:33, 18:23] = 1
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "wrong.npy", np.ones((5, 7)))
    page = visit("/?mode=fast&gain=1000&min_score=0.01")
    drop(page, frame_file(tmp_path))
    page.get_by_text("sky.png: one image").wait_for()
    page.locator("#map-mask input[type=file]").set_input_files(tmp_path / "mask.npy")
    page.get_by_text("mask.npy: one image of 90 x 60 px is used with your own file.").wait_for()
    page.locator("#run").click()
    assert "1 target in 1 group." in finished(page)
    page.locator("#map-error input[type=file]").set_input_files(tmp_path / "wrong.npy")
    page.locator("#mark").get_by_role("alert").filter(has_text="wrong.npy has the shape").wait_for()


def test_each_group_that_is_asked_for_is_drawn(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    x, y = (each.ravel() for each in np.meshgrid([15.3, 45.7, 75.2], [12.4, 30.1, 48.8]))
    image = SKY.observe(Targets(x=x, y=y, intensity=np.linspace(900, 2500, 9)), 5)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / "nine.png")
    page = visit("/?mode=fast")
    drop(page, tmp_path / "nine.png")
    page.get_by_text("nine.png: one image").wait_for()
    page.locator("#run").click()
    finished(page)
    captions = page.locator("#close-ups figcaption")
    assert captions.count() == 6
    page.locator("#asked input").click()
    page.get_by_role("option").filter(has_text="I: ").click()
    captions.nth(6).wait_for()
    assert captions.nth(6).inner_text().startswith("Group I: ")


@pytest.mark.parametrize("viewport", [DESK, PHONE])
def test_a_video_has_a_slider_and_its_tracks(
    visit: Callable[..., sync_api.Page], tmp_path: Path, viewport: dict[str, int]
) -> None:
    av = pytest.importorskip("av", reason="needs the extra `video`")
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 90, 60, "gray"
        for number in range(12):
            seen = SKY.observe(Targets(x=[20.3 + 2 * number], y=[30.2], intensity=[1500.0]), number)
            frame = av.VideoFrame.from_ndarray(np.clip(seen, 0, 255).astype(np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    page = visit("/?mode=fast", viewport=viewport)
    drop(page, tmp_path / "clip.mkv")
    page.get_by_text("clip.mkv: 12 frames of 90 x 60 px").wait_for()
    # The upload's own answer sets these fields: what is typed before it arrives is overwritten.
    sync_api.expect(page.get_by_label("number input for Images to unmix")).to_have_value("10", timeout=PATIENCE_MS)
    page.get_by_label("number input for Images to unmix").fill("4")
    page.locator("#preview", has_text="clip.mkv, image 0, not unmixed yet").wait_for()
    page.get_by_label("number input for Image of the file").fill("3")
    page.locator("#preview", has_text="clip.mkv, image 3, not unmixed yet").wait_for()
    page.locator("#run").click()
    assert "4 targets in 4 groups, 1 track." in finished(page)
    picture = page.locator("#pictures .csist-look")
    picture.locator(".main-svg").first.wait_for()
    assert "image 3: 1 target" in picture.inner_text()
    lines = "figure => figure.querySelector('.js-plotly-plot').data.filter(each => each.mode === 'lines')"
    assert picture.evaluate(f"figure => ({lines})(figure).map(each => each.x.length)") == [4]
    page.get_by_label("number input for Image shown").fill("5")
    page.locator("#pictures", has_text="image 5: 1 target").wait_for()
    # A row of another image shows that image.
    page.locator("#results tr[data-target]").nth(3).click()
    page.locator("#pictures", has_text="image 6: 1 target").wait_for()
    page.wait_for_function("document.querySelector('#pictures .js-plotly-plot')?.data?.[2].x[0] > 30")


def test_the_focus_follows_a_run(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?mode=fast")
    page.locator("#run").focus()
    page.keyboard.press("Enter")
    finished(page)
    page.wait_for_function("document.activeElement.id === 'run'")


# --- pictures that can be zoomed ----------------------------------------------------------------------------


def unmixed(page: sync_api.Page) -> sync_api.Locator:
    """The picture of the first result, drawn."""
    page.locator("#run").click()
    finished(page)
    picture = page.locator("#pictures .csist-look").first
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
    picture.locator(".csist-look-plot").first.scroll_into_view_if_needed()
    across, down = picture.evaluate(script, [x, y])
    return float(across), float(down)


def test_clips_and_colour_bars_do_not_depend_on_the_address(
    visit: Callable[..., sync_api.Page], tmp_path: Path
) -> None:
    """A run changes the address of the page; references to the old one left pictures without them."""
    page = visit("/?mode=fast")
    drop(page, frame_file(tmp_path))
    page.get_by_text("sky.png: one image").wait_for()
    picture = unmixed(page)
    page.wait_for_function("new URL(location).searchParams.get('source') === 'upload'")
    references = picture.evaluate(
        """root => [...root.querySelectorAll('[clip-path], .cbfill')].map(
          each => each.getAttribute('clip-path') || each.style.fill
        )"""
    )
    assert len(references) >= 2 and all(re.match(r"""url\(["']?#""", each) for each in references), references


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
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while right - left < 0.9 * (whole[0][1] - whole[0][0]) and time.monotonic() < deadline:
        # Two clicks that a busy machine takes apart by more than 0.3 s are no double click: a user clicks again.
        page.mouse.dblclick(*pixel_at(picture, 0.5 * (left + right), 125))
        page.wait_for_timeout(1000)
        left, right = ranges(picture)[0]
    assert right - left >= 0.9 * (whole[0][1] - whole[0][0])


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
    places = [[float(cell.split(" ")[0]) for cell in row.split("\t")[1:3]] for row in rows.all_inner_texts()]
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


def test_arrow_keys_move_between_rows(visit: Callable[..., sync_api.Page], tmp_path: Path) -> None:
    page = visit("/?mode=fast")
    drop(page, frame_file(tmp_path))
    page.get_by_text("sky.png: one image").wait_for()
    unmixed(page)
    rows = page.locator("#results tr[data-target]")
    assert [rows.nth(k).get_attribute("tabindex") for k in range(2)] == ["0", "-1"]
    rows.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    sync_api.expect(rows.nth(1)).to_have_attribute("aria-current", "true")
    outline = rows.nth(1).evaluate("row => getComputedStyle(row).outlineStyle")
    assert outline == "solid"


def test_keys_zoom_and_move_a_picture(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?mode=fast")
    picture = unmixed(page)
    whole = ranges(picture)
    picture.locator(".csist-look-plot").focus()
    page.keyboard.press("+")
    zoomed = ranges(picture)
    assert zoomed[0][1] - zoomed[0][0] == pytest.approx(0.7 * (whole[0][1] - whole[0][0]), rel=0.2)
    page.keyboard.press("ArrowRight")
    assert ranges(picture)[0][0] > zoomed[0][0]
    page.keyboard.press("0")
    assert ranges(picture)[0] == pytest.approx(whole[0], abs=1.0)


def test_methods_stand_in_one_row_with_one_residual_scale_and_one_zoom(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast&methods=continuous ista ista%2Brefine")
    picture = unmixed(page)
    plots = picture.locator(".js-plotly-plot")
    assert plots.count() == 3 and page.locator("#pictures .csist-look").count() == 1
    boxes = [plots.nth(k).bounding_box() for k in range(3)]
    assert len({round(box["y"]) for box in boxes if box}) == 1
    picture.locator("select[name=show]").select_option("residual")
    for number in range(3):
        script = "plot => (({zmin, zmax}) => [zmin, zmax])(plot._fullData[0])"
        assert plots.nth(number).evaluate(script) == [-5, 5]
    for bar in picture.locator(".colorbar").all():
        unit = bar.locator(".cbtitle text").bounding_box()
        ticks = [tick.bounding_box() for tick in bar.locator(".cbaxis text").all()]
        assert unit and len(ticks) > 1
        assert all(tick and tick["y"] + tick["height"] <= unit["y"] for tick in ticks)
    page.mouse.move(*pixel_at(picture, 2, 2))
    page.mouse.down()
    page.mouse.move(*pixel_at(picture, 7, 7), steps=5)
    page.mouse.up()
    page.wait_for_function(
        "[...document.querySelectorAll('#pictures .js-plotly-plot')].every(plot => plot.layout.xaxis.range[1] < 9)"
    )
    texts = page.locator("#results h3").all_inner_texts()
    assert texts == ["continuous", "ista", "ista+refine", "simulated truth"]
    assert page.locator("#pictures img").count() == 3


def test_a_picture_fits_on_a_phone_and_its_labels_are_apart(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast", viewport=PHONE)
    picture = unmixed(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = picture.bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
    for axis in "xy":
        title = picture.locator(f".{axis}title").bounding_box()
        ticks = picture.locator(f".{axis}tick text")
        assert title is not None and ticks.count() > 1
        for number in range(ticks.count()):
            tick = ticks.nth(number).bounding_box()
            assert tick is not None
            apart = (
                tick["x"] + tick["width"] <= title["x"]
                or title["x"] + title["width"] <= tick["x"]
                or tick["y"] + tick["height"] <= title["y"]
                or title["y"] + title["height"] <= tick["y"]
            )
            assert apart, (axis, number)


def test_a_wide_table_on_a_phone_says_that_it_scrolls(visit: Callable[..., sync_api.Page]) -> None:
    page = visit("/?source=build&mode=fast", viewport=PHONE)
    unmixed(page)
    hint = page.locator("#tables .csist-hint").first
    assert hint.is_visible()
    table = page.locator("#tables .csist-scroll").first
    table.evaluate("table => table.scrollTo(10000, 0)")
    page.wait_for_function("document.querySelector('#tables section').classList.contains('csist-at-end')")
