"""Pictures: written complete, the same every time, with nothing that covers a text."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from csist import plots
from csist.checks import InputError
from csist.evaluation import score_predictions
from csist.metrics import match_detections, precision_recall_curve, reliability_curve
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

RNG = np.random.default_rng(3)
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


def covered_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap when the figure is drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    unseen = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            unseen |= {
                label
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                for label in (tick.label1, tick.label2)
                if not low <= tick.get_loc() <= high
            }
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer()).shrunk(0.95, 0.7)) for t in texts]
    return [(a, b) for (a, first), (b, second) in combinations(boxes, 2) if first.overlaps(second)]


def views() -> list[plots.View]:
    return [
        plots.View(IMAGE, MODEL, FOUND, TRUTH, "stack.npy, image 12: 3 targets"),
        plots.View(IMAGE, SENSOR.render(Targets.empty()), Targets.empty(), None, "stack.npy, image 13: 0 targets"),
    ]


def frame(targets: Targets = FRAME_TARGETS) -> Figure:
    image = FRAME_SENSOR.observe(FRAME_TARGETS, 2)
    image[10:12, 20:30] = np.nan
    return plots.frame_panel(image, targets, FRAME_SENSOR.render(targets), title="sky.fits: 5 targets")


def rows() -> tuple[list[dict[str, object]], list[Targets], list[Targets]]:
    truths = [TRUTH] * 8
    found = [FOUND.shifted(*RNG.normal(0, 0.08, 2)) for _ in truths]
    figures = score_predictions(found, truths, resamples=50)
    made = [{"name": name, "reference": name.startswith("oracle"), **figures} for name in NAMES]
    return made, found, truths


NAMES = ["continuous", "dista-net", "ista", "oracle, ratio 3, by intensity", "oracle, ratio 3, by closeness"]


def evaluation() -> Figure:
    made, found, truths = rows()
    curve = precision_recall_curve(match_detections(found, truths), 0.15)
    return plots.evaluation_panel(made, {"continuous": curve}, 0.15, {"continuous": reliability_curve(found, truths)})


FIGURES = {
    "window": lambda: plots.unmixing_panel(IMAGE, FOUND, MODEL, TRUTH, "window.png: 3 targets"),
    "gallery": lambda: plots.window_gallery(views()),
    "spread": lambda: plots.unmixing_panel(IMAGE, Targets(x=[0, 10], y=[0, 10], intensity=[9, 900]), MODEL),
    "nothing": lambda: plots.unmixing_panel(np.zeros((3, 3)), Targets.empty(), np.zeros((3, 3))),
    "frame": frame,
    "frame without targets": lambda: frame(Targets.empty()),
    "comparison": lambda: plots.method_comparison(rows()[0], "CSIST-100K, ratio 3"),
    "evaluation": evaluation,
    "precision and recall": lambda: plots.precision_recall(
        {"continuous": precision_recall_curve(match_detections([FOUND], [TRUTH]), 0.25)}, 0.25
    ),
    "calibration": lambda: plots.calibration({"continuous": reliability_curve(*rows()[1:])}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another(name: str) -> None:
    assert covered_texts(FIGURES[name]()) == []


@pytest.mark.parametrize("suffix", plots.PICTURE_SUFFIXES)
def test_the_same_picture_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        plots.save_figure(FIGURES["nothing"](), tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert len(list(tmp_path.iterdir())) == 2


def test_a_png_is_an_image(tmp_path: Path) -> None:
    plots.save_figure(FIGURES["frame"](), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 400


@pytest.mark.parametrize("name", ["a.jpg", "a", "missing/a.png"])
def test_a_bad_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot write"):
        plots.save_figure(FIGURES["window"](), tmp_path / name)
    assert not list(tmp_path.iterdir())


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
    "make",
    [
        lambda: plots.window_gallery([]),
        lambda: plots.method_comparison([]),
        lambda: plots.precision_recall({}, 0.25),
        lambda: plots.calibration({}),
        lambda: plots.unmixing_panel(IMAGE, FOUND, MODEL[1:]),
    ],
)
def test_nothing_to_draw_is_refused(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]
