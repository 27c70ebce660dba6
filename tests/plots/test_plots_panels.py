"""Pictures of unmixed images: coordinates, marks, and nothing that covers a text."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from plots_helpers import covered_texts

from csist import plots
from csist.checks import InputError
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.plots.images import cut_out
from csist.targets import Targets

SENSOR = Sensor(read_noise=2.0)
TRUTH = Targets(x=[4.8, 5.3, 5.1], y=[5.0, 4.9, 5.45], intensity=[230.0, 240.0, 225.0])
FOUND = TRUTH.replace(x=TRUTH.x + 0.03, x_std=[0.05] * 3, y_std=[0.04] * 3, score=[0.9, 0.8, 0.95], group=[0, 0, 0])
IMAGE = SENSOR.observe(TRUTH, 1)
MODEL = SENSOR.render(FOUND)

FRAME_SENSOR = Sensor(psf=GaussianPSF(1.2), shape=(90, 120), background=100.0, read_noise=3.0)
FRAME_TARGETS = Targets(
    x=[2.0, 60.0, 61.5, 118.0, 30.0], y=[2.0, 40.0, 41.0, 88.0, 70.0], intensity=[900.0, 3000.0, 2000.0, 800.0, 150.0],
    group=[0, 1, 1, 2, -1],
)  # fmt: skip


CLOUD = np.random.default_rng(3).normal([4.9, 5.1], 0.05, (600, 2))


def views() -> list[plots.View]:
    return [
        plots.View(IMAGE, MODEL, FOUND, TRUTH, "stack.npy, image 12: 3 targets", cloud=CLOUD),
        plots.View(IMAGE, SENSOR.render(Targets.empty()), Targets.empty(), None, "stack.npy, image 13: 0 targets"),
    ]


def frame(targets: Targets = FRAME_TARGETS) -> Figure:
    image = FRAME_SENSOR.observe(FRAME_TARGETS, 2)
    image[10:12, 20:30] = np.nan
    return plots.frame_panel(image, targets, FRAME_SENSOR.render(targets), title="sky.fits: 5 targets")


def overview(targets: Targets) -> Figure:
    view = plots.View(FRAME_SENSOR.observe(FRAME_TARGETS, 2), FRAME_SENSOR.render(targets), targets)
    return plots.frame_overview(view, plots.group_views(view))


FIGURES = {
    "window": lambda: plots.unmixing_panel(IMAGE, FOUND, MODEL, TRUTH, "window.png: 3 targets"),
    "gallery": lambda: plots.window_gallery(views()),
    "spread": lambda: plots.unmixing_panel(IMAGE, Targets(x=[0, 10], y=[0, 10], intensity=[9, 900]), MODEL),
    "nothing": lambda: plots.unmixing_panel(np.zeros((3, 3)), Targets.empty(), np.zeros((3, 3))),
    "frame": frame,
    "frame without targets": lambda: frame(Targets.empty()),
    "group": lambda: plots.group_panel(views()[0]),
    "group without targets": lambda: plots.group_panel(views()[1]),
    "overview": lambda: overview(FRAME_TARGETS),
    "overview without targets": lambda: overview(Targets.empty()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another(name: str) -> None:
    assert covered_texts(FIGURES[name]()) == []


def test_axes_are_those_of_the_image() -> None:
    axis = FIGURES["window"]().axes[0]
    assert axis.get_xlim() == (-0.5, 10.5)
    assert axis.get_ylim() == (10.5, -0.5)  # y downwards


def test_a_cut_keeps_frame_coordinates_and_what_lies_inside() -> None:
    whole = plots.View(np.arange(80.0 * 90).reshape(80, 90), np.zeros((80, 90)), FRAME_TARGETS)
    part = plots.cut_out(whole, 60.0, 40.0, 21)
    assert part.origin == (30, 50)
    assert part.extent == (49.5, 70.5, 50.5, 29.5)
    assert part.targets == FRAME_TARGETS[[1, 2]]
    assert part.image[0, 0] == whole.image[30, 50]
    assert plots.cut_out(whole, 0.0, 79.0, 21).origin == (59, 0)


def test_circle_areas_follow_the_flux() -> None:
    found = Targets(x=[3, 7], y=[3, 7], intensity=[400, 100])
    circles = plots.unmixing_panel(IMAGE, found, MODEL).axes[0].collections[-1]
    first, second = circles.get_sizes()
    assert first / second == pytest.approx(4.0)


@pytest.mark.parametrize(
    "make", [lambda: plots.window_gallery([]), lambda: plots.unmixing_panel(IMAGE, FOUND, MODEL[1:])]
)
def test_nothing_to_draw_is_refused(make: Callable[[], Figure]) -> None:
    with pytest.raises(InputError):
        make()


def test_samples_are_drawn_where_they_lie() -> None:
    close_up = plots.group_panel(views()[0]).axes[1]
    offsets = close_up.collections[0].get_offsets()
    assert np.array_equal(offsets, CLOUD)


def test_a_part_of_a_view_has_its_part_of_the_samples() -> None:
    cloud = np.array([[3.0, 4.0], [30.0, 31.0], [33.0, 38.9], [60.0, 9.0]])
    whole = plots.View(np.zeros((50, 70)), np.zeros((50, 70)), FRAME_TARGETS, cloud=cloud)
    assert cut_out(whole, 32.0, 33.0, 11).cloud.tolist() == [[30.0, 31.0]]


def test_group_views_are_the_brightest_groups_and_do_not_overlap() -> None:
    whole = plots.View(np.zeros((90, 120)), np.zeros((90, 120)), FRAME_TARGETS)
    views = plots.group_views(whole, most=2)
    assert [view.title for view in views] == ["A", "B"]
    assert views[0].targets == FRAME_TARGETS[[1, 2]] and views[1].targets == FRAME_TARGETS[[0]]
    assert plots.group_views(plots.View(np.zeros((9, 9)), np.zeros((9, 9)), Targets.empty())) == []


def test_a_sheet_holds_every_picture_in_its_place() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = []
    for colour, size in zip(colours, [(20, 10), (30, 12), (8, 6)], strict=True):
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, "png")
        pictures.append(file.getvalue())
    sheet = Image.open(io.BytesIO(plots.contact_sheet(pictures, columns=2)))
    assert sheet.size == (50, 18)
    assert [sheet.getpixel(place) for place in ((0, 0), (20, 0), (0, 12))] == colours
    with pytest.raises(InputError):
        plots.contact_sheet([])


def test_a_figure_as_png_is_that_of_the_file(tmp_path: Path) -> None:
    plots.save_figure(FIGURES["group"](), tmp_path / "group.png")
    drawn, saved = Image.open(io.BytesIO(plots.figure_png(FIGURES["group"]()))), Image.open(tmp_path / "group.png")
    assert drawn.tobytes() == saved.tobytes()
