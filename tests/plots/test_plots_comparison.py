"""Pictures of how well methods do: what stands where, and nothing that covers a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from plots_helpers import covered_texts

from csist import plots
from csist.checks import InputError
from csist.evaluation import score_predictions
from csist.metrics import match_detections, precision_recall_curve, reliability_curve
from csist.targets import Targets

TRUTH = Targets(x=[4.8, 5.3, 5.1], y=[5.0, 4.9, 5.45], intensity=[230.0, 240.0, 225.0])
FOUND = TRUTH.replace(x=TRUTH.x + 0.03, score=[0.9, 0.8, 0.95])
NAMES = ["continuous", "dista-net", "ista", "oracle, ratio 3, by intensity", "oracle, ratio 3, by closeness"]


def rows() -> tuple[list[dict[str, object]], list[Targets], list[Targets]]:
    rng = np.random.default_rng(3)
    truths = [TRUTH] * 8
    found = [FOUND.shifted(*rng.normal(0, 0.08, 2)) for _ in truths]
    figures = score_predictions(found, truths, resamples=50)
    made = [{"name": name, "reference": name.startswith("oracle"), **figures} for name in NAMES]
    return made, found, truths


def evaluation() -> Figure:
    made, found, truths = rows()
    curve = precision_recall_curve(match_detections(found, truths), 0.15)
    return plots.evaluation_panel(made, {"continuous": curve}, 0.15, {"continuous": reliability_curve(found, truths)})


def timed(name: str, speed: float, score: float = 50.0, **more: Any) -> dict[str, Any]:
    speeds = {"median": speed, "slowest": 0.5 * speed, "fastest": 3.0 * speed}
    return {"name": name, "CSO-mAP": score, "interval": (score - 2.0, score + 1.0), "images_per_second": speeds, **more}


SPEEDS = [
    timed("continuous, fast", 1200.0, 93.0),
    timed("dista-net, batch 64", 30.0, 46.0, interval=None, published=True),
    *(timed(f"another method, form {number}", 2.0 + number) for number in range(8)),
]

COSTS: list[dict[str, Any]] = [
    *({"name": name, "CSO-mAP": score, "multiply_adds_per_image": cost, "interval": None}
      for name, score, cost in (("a", 45.0, 1e8), ("a+refine", 88.0, 1e8), ("b", 40.0, 5e8), ("b+yolo", 38.0, 5e8))),
    {"name": "continuous", "CSO-mAP": 93.0, "interval": (92.0, 94.0)},
    {"name": "oracle, ratio 3, by intensity", "CSO-mAP": 45.5, "reference": True},
    {"name": "ista", "CSO-mAP": 35.0, "psnr": 20.0},
]  # fmt: skip

FIGURES = {
    "comparison": lambda: plots.method_comparison(rows()[0], "CSIST-100K, ratio 3"),
    "evaluation": evaluation,
    "precision and recall": lambda: plots.precision_recall(
        {"continuous": precision_recall_curve(match_detections([FOUND], [TRUTH]), 0.25)}, 0.25
    ),
    "calibration": lambda: plots.calibration({"continuous": reliability_curve(*rows()[1:])}),
    "speed": lambda: plots.accuracy_against_speed(SPEEDS, "2,000 images of the test split, 16 threads"),
    "multiply-adds": lambda: plots.accuracy_against_multiply_adds(COSTS, "grid ratio 3, 10,000 images"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another(name: str) -> None:
    assert covered_texts(FIGURES[name]()) == []


def test_a_method_stands_at_its_speed_and_accuracy_with_both_bars() -> None:
    axis = plots.accuracy_against_speed(SPEEDS).axes[0]
    assert axis.get_xscale() == "log"
    marker, _, (across, upright) = axis.containers[0].lines
    assert marker.get_xydata().tolist() == [[1200.0, 93.0]]
    assert across.get_segments()[0][:, 0].tolist() == [600.0, 3600.0]
    assert upright.get_segments()[0][:, 1].tolist() == [91.0, 94.0]


def test_no_two_reference_lines_look_the_same() -> None:
    references = [{"name": f"oracle {n}", "CSO-mAP": 10.0 * n, "reference": True} for n in range(1, 5)]
    axis = plots.accuracy_against_multiply_adds([*COSTS, *references]).axes[0]
    named = [line for line in axis.lines if str(line.get_label()).startswith(("oracle", "continuous"))]
    assert len(named) == 6
    assert len({(to_rgba(line.get_color()), line.get_linestyle()) for line in named}) == 6


def test_a_published_accuracy_is_hollow_and_says_so() -> None:
    axis = plots.accuracy_against_speed(SPEEDS).axes[0]
    fills = [container.lines[0].get_markerfacecolor() for container in axis.containers]
    assert [to_rgba(fill) == to_rgba("white") for fill in fills] == [bool(row.get("published")) for row in SPEEDS]
    labels = [container.get_label() for container in axis.containers]
    assert [label for label in labels if "published" in label] == ["dista-net, batch 64, accuracy as published"]


def test_no_two_methods_look_the_same() -> None:
    axis = plots.accuracy_against_speed(SPEEDS).axes[0]
    lines = [container.lines[0] for container in axis.containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(SPEEDS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: plots.method_comparison([]),
        lambda: plots.precision_recall({}, 0.25),
        lambda: plots.calibration({}),
        lambda: plots.accuracy_against_speed([]),
        lambda: plots.accuracy_against_speed([timed("stuck", 0.0)]),
        lambda: plots.accuracy_against_speed([timed("lost", float("nan"))]),
    ],
)
def test_nothing_to_draw_is_refused(make: Callable[[], Figure]) -> None:
    with pytest.raises(InputError):
        make()
