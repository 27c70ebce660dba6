"""Draw the pictures in docs/images, except those of the gallery, which the examples draw.

    python scripts/figures.py [NAME ...]

All pictures are computed from the package or read from docs/results, so they agree with both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

import csist
from architecture import architecture
from csist.evaluation import grid_oracles
from csist.frames import estimate_psf
from csist.injection import InjectionPlan, inject_groups
from csist.io import read_image, sample_frames
from csist.metrics import CSO_DISTANCES_PX, ReliabilityCurve, cso_map, match_detections, precision_recall_curve
from csist.physics.bounds import cramer_rao_bound
from csist.plots import (
    DETECTION,
    TRUTH,
    accuracy_against_multiply_adds,
    completeness_curve,
    limits_by_noise,
    psf_fit,
    save_figure,
    training_curves,
)
from csist.plots import calibration as calibration_curves
from csist.plots.style import BLUE, GREEN, GREY, LINE_COLOURS, VERMILION, styled
from docs_tables import ROOT, read_result, worked_example

SENSOR, PRIOR = csist.Sensor(), csist.ScenePrior.csist_100k()
RATIOS = range(1, 16)
TRAINED_RATIOS = (3, 5, 7)
SCENES = 1500
NOISES = {"rounding only": 0.0, "noise of 1 count": 1.0, "noise of 5 counts": 5.0}


def imaging() -> Figure:
    """From the points of a scene to the recorded image."""
    scene = csist.Targets(x=[4.75, 5.35, 5.0], y=[4.8, 4.9, 5.4], intensity=[235, 225, 245])
    camera = csist.Sensor(read_noise=5.0)
    fine = 15
    offset = (np.arange(11 * fine) + 0.5) / fine - 0.5
    # Pixels a fifteenth as wide show the light in front of the detector.
    narrow = csist.GaussianPSF(0.5 * fine)
    light = sum(
        intensity * narrow.response((offset[None, :] - x) * fine, (offset[:, None] - y) * fine)
        for x, y, intensity in zip(scene.x, scene.y, scene.intensity, strict=True)
    )
    shown = (
        ("point targets", None),
        ("blurred by the lens", light),
        ("integrated over pixels", camera.render(scene)),
        ("recorded with noise", camera.observe(scene, rng=1)),
    )
    figure = Figure(figsize=(9.6, 2.75), layout="constrained")
    for axis, (title, values) in zip(figure.subplots(1, 4), shown, strict=True):
        if values is None:
            axis.set_facecolor("black")
        else:
            axis.imshow(values, cmap="gray", extent=(-0.5, 10.5, 10.5, -0.5), interpolation="nearest")
        axis.scatter(scene.x, scene.y, s=22 if values is None else 10, c="white" if values is None else TRUTH, zorder=3)
        axis.set(title=title, xlim=(1.5, 8.5), ylim=(8.5, 1.5), xticks=range(2, 9), yticks=range(2, 9), aspect="equal")
        axis.set_xlabel("x in px")
    figure.axes[0].set_ylabel("y in px")
    return figure


def ceiling() -> Figure:
    """Rounding of positions to a grid, and the score of an oracle against the ratio."""
    figure = Figure(figsize=(9.0, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.35))
    scene = csist.Targets(x=[4.72, 5.41, 5.06, 4.63], y=[4.64, 4.78, 5.11, 5.38], intensity=[240] * 4)
    grid = csist.SubPixelGrid(SENSOR.shape, 3)
    snapped = grid.snap(scene)
    for place in np.arange(4) / 3 + 4.5:
        left.axhline(place, color=GREY, linewidth=0.6)
        left.axvline(place, color=GREY, linewidth=0.6)
    for k in range(len(scene)):
        left.plot([scene.x[k], snapped.x[k]], [scene.y[k], snapped.y[k]], color=GREY, linewidth=1.2)
    left.scatter(
        snapped.x, snapped.y, s=45, facecolors="none", edgecolors=DETECTION, linewidths=1.6, label="centre of its cell"
    )
    left.scatter(scene.x, scene.y, s=40, marker="x", c=BLUE, label="target", zorder=3)
    left.set(xlim=(4.42, 5.58), ylim=(5.58, 4.42), aspect="equal", title="one pixel with 3 x 3 cells")
    left.set(xlabel="x in px", ylabel="y in px")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)

    truths = csist.sample_scenes(PRIOR, SENSOR, SCENES, seed=0)
    scores: dict[str, list[float]] = {"closeness": [], "intensity": []}
    for ratio in RATIOS:
        for by, found in grid_oracles(truths, csist.SubPixelGrid(SENSOR.shape, ratio)).items():
            scores[by].append(cso_map(found, truths)["CSO-mAP"])
    right.plot(RATIOS, scores["closeness"], color=BLUE, marker="o", label="ranked by own error: the ceiling")
    right.plot(RATIOS, scores["intensity"], color=VERMILION, marker="s", linestyle="--", label="ranked by intensity")
    right.set(xlabel="ratio: cells per pixel along each axis", ylabel="CSO-mAP in percent", ylim=(0, 104))
    right.set_xticks(list(RATIOS)[::2])
    right.set_title("best score with cells as positions")
    right.grid(linewidth=0.4, alpha=0.5)
    right.legend(loc="lower right")
    return figure


def separation() -> Figure:
    """The Cramer-Rao bound for one of two targets against their separation."""
    figure = Figure(figsize=(6.4, 3.7), layout="constrained")
    axis = figure.subplots()
    apart = np.linspace(0.15, 2.0, 75)
    for (label, noise), colour in zip(NOISES.items(), LINE_COLOURS, strict=False):
        camera = csist.Sensor(read_noise=noise)
        bounds = [_bound_along_the_line(distance, camera) for distance in apart]
        axis.plot(apart, bounds, color=colour, label=label, linewidth=1.8)
    axis.axhline(CSO_DISTANCES_PX[0], color=GREY, linewidth=0.8, linestyle=":")
    axis.annotate("0.05 px", (apart[0], CSO_DISTANCES_PX[0]), xytext=(4, 3), textcoords="offset points")
    axis.axvline(PRIOR.min_separation_px, color=GREY, linewidth=0.8, linestyle="--")
    axis.annotate(
        "minimum in\nthe benchmark", (PRIOR.min_separation_px, 1e-3), xytext=(4, 6), textcoords="offset points",
    )  # fmt: skip
    axis.set_yscale("log")
    axis.set(ylim=(1e-3, 2.0), xlim=(apart[0], apart[-1]))
    axis.set(xlabel="separation of two targets of 235 counts, px", ylabel="smallest standard error of x, px")
    axis.grid(linewidth=0.4, alpha=0.5)
    axis.legend(loc="upper right")
    return figure


def _bound_along_the_line(distance: float, camera: csist.Sensor) -> float:
    pair = csist.Targets(x=[5.0 - distance / 2, 5.0 + distance / 2], y=[5.0, 5.0], intensity=[235, 235])
    return float(cramer_rao_bound(pair, camera).x[0])


def flux() -> Figure:
    """Total light of benchmark groups by number of targets."""
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    axis = figure.subplots()
    truths = csist.sample_scenes(PRIOR, SENSOR, 5 * SCENES, seed=0)
    bins = np.arange(200, 1301, 10)
    for count, colour in zip(range(1, 6), LINE_COLOURS, strict=False):
        total = [float(scene.intensity.sum()) for scene in truths if len(scene) == count]
        axis.hist(total, bins, color=colour, alpha=0.75)
        height = np.histogram(total, bins)[0].max()
        axis.annotate(
            f"{count} target{'s' * (count > 1)}", (float(np.mean(total)), height), xytext=(0, 4),
            textcoords="offset points", ha="center", color=colour,
        )  # fmt: skip
    axis.set(xlabel="total light of the group in counts", ylabel="groups")
    axis.margins(y=0.15)
    return figure


def metric() -> Figure:
    """The worked example of the metric page."""
    found, truths = worked_example()
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1.0))
    _draw_matches(left, found[0], truths[0])
    matches = match_detections(found, truths)
    for distance, colour in ((0.10, VERMILION), (0.15, BLUE), (0.25, GREEN)):
        curve = precision_recall_curve(matches, distance)
        recall, envelope = np.append(0.0, curve.recall), np.append(curve.envelope[:1], curve.envelope)
        right.step(
            np.append(recall, recall[-1]), np.append(envelope, 0.0), where="pre", color=colour,
            label=f"within {distance:.2f} px", linewidth=1.8,
        )  # fmt: skip
    right.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="interpolated precision")
    right.set_title("AP is the area under the curve")
    right.grid(linewidth=0.4, alpha=0.5)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return figure


def _draw_matches(axis: Axes, found: csist.Targets, truth: csist.Targets) -> None:
    for k in range(len(truth)):
        for distance in CSO_DISTANCES_PX:
            axis.add_patch(Circle((truth.x[k], truth.y[k]), distance, fill=False, color=GREY, linewidth=0.6))
        axis.annotate(f"T{k + 1}", (truth.x[k], truth.y[k]), xytext=(0, -16), textcoords="offset points", ha="center")
    axis.scatter(truth.x, truth.y, s=55, marker="x", c=BLUE, label="true target", zorder=3)
    axis.scatter(found.x, found.y, s=45, c=DETECTION, edgecolors="black", linewidths=0.6, label="detection", zorder=4)
    for k in range(len(found)):
        axis.annotate(
            f"{found.score[k]:.2f}",
            (found.x[k], found.y[k]),
            xytext=(5, 6 - 18 * (k % 3 == 2)),
            textcoords="offset points",
            fontsize=8,
        )
    axis.set(xlim=(4.68, 5.92), ylim=(5.32, 4.68), aspect="equal", xlabel="x in px", ylabel="y in px")
    axis.set_title("first image: detections with their scores")
    axis.legend(loc="lower right")


def cost() -> Figure:
    """CSO-mAP against multiply-adds from `csist benchmark`, with the limit from `bench_accuracy.py`."""
    table = read_result("csist-100k-ratio-3")
    limit = next(row for row in read_result("accuracy")["rows"].values() if not row["sensor"]["read_noise"])["limit"]
    lines = [
        {"name": f"physical limit, {which.replace('_', ' ')}", "reference": True, "CSO-mAP": limit[which]["CSO-mAP"][0]}
        for which in ("annealed", "from_truth")
    ]
    return accuracy_against_multiply_adds([*table["rows"], *lines], f"grid ratio 3, {table['data']['images']:,} images")


def limits() -> Figure:
    """CSO-mAP of both modes and the physical limit against the noise, from `benchmarks/bench_accuracy.py`."""
    rows = [
        {
            "noise_std": row["sensor"]["read_noise"],
            "limit": sorted(row["limit"][which]["CSO-mAP"][0] for which in ("annealed", "from_truth")),
            "methods": {f"continuous, {mode}": row[mode]["scores"]["CSO-mAP"][0] for mode in ("accurate", "fast")},
        }
        for row in read_result("accuracy")["rows"].values()
        if row["sensor"]["bits"] is None
    ]
    return limits_by_noise(rows)


def sequences() -> Figure:
    """Score by noise and error by number of frames of the joint posterior, from `benchmarks/bench_sequences.py`."""
    result = read_result("sequences")
    rows = {float(noise): row for noise, row in result["noise"].items()}
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = {
        "dista-net": ("one frame, DISTA-Net", VERMILION),
        "alone": ("one frame", GREY),
        "joint_5": ("5 frames", BLUE),
        "joint_20": ("20 frames", GREEN),
    }
    for key, (name, colour) in lines.items():
        noises = sorted(rows)
        value, low, high = np.array([rows[noise][key]["first_frame"] for noise in noises]).T
        left.errorbar(noises, value, (value - low, high - value), marker="o", capsize=3, color=colour, label=name)
    goal = result["goal"]
    left.plot(goal["noise"], goal["alone"]["first_frame"][0], "D", color=GREY, mfc="none", label="one frame, aim")
    left.axhline(goal["alone"]["first_frame"][0], color=GREY, linestyle=":")
    left.set(xlabel="read noise in counts", ylabel="CSO-mAP of the first frame in %", ylim=(None, 101.0))
    noisiest = max(rows)
    row, limit = rows[noisiest], rows[noisiest]["limit"]
    frames = sorted(int(n) for n in row["bound_px"])
    right.plot(frames, [row["bound_px"][str(n)] for n in frames], color=VERMILION, label="Cramér-Rao, no prior")
    name = f"posterior limit, {limit['trajectories']} trajectories"
    long = [n for n in frames if "error_px" in limit.get(str(n), {})]
    right.plot(long, [limit[str(n)]["error_px"] for n in long], "--s", color=BLUE, mfc="none", label=name)
    for key, n in (("joint_5", 5), ("joint_20", 20)):
        right.plot(n, row[key]["error_px"], "o", color=GREEN, label="accurate" if n == 5 else None)
    right.set(xscale="log", yscale="log", xlabel="frames", ylabel="error of x and y in px", xticks=frames)
    right.minorticks_off()
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    right.set_xticklabels([str(n) for n in frames])
    right.set_title(f"read noise {noisiest:g}, middle frame")
    left.set_title(f"{result['trajectories']} test trajectories")
    for axis in (left, right):
        axis.legend()
    return figure


def psf() -> Figure:
    """A width measured on a simulated star field."""
    sky = csist.Sensor(csist.GaussianPSF(1.1), shape=(96, 160), background=50.0, read_noise=3.0)
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(7), np.arange(4)))
    stars = csist.Targets(
        x=12.0 + 22.7 * column + 0.37 * row, y=12.0 + 23.6 * row + 0.29 * column, intensity=2000.0 + 500.0 * column
    )
    measured = estimate_psf(sky.observe(stars, 0))
    return psf_fit(measured.profile, measured.sigma_px, measured.sigma_px_std)


def completeness() -> Figure:
    """Completeness of injected pairs in the real frame that comes with the package."""
    frame = read_image(sample_frames()["airplane_above_hills"])[0]
    return completeness_curve(inject_groups(frame, InjectionPlan(groups=160, seed=1), psf=0.8, mode="fast").rows())


def calibration() -> Figure:
    """Stated against observed probability, from `benchmarks/bench_calibration.py`."""
    fields = ReliabilityCurve._fields
    curves = {
        f"{row['mode']}, noise {row['noise_std']:g}": ReliabilityCurve(*(np.array(row[name]) for name in fields))
        for row in read_result("calibration")["rows"]
    }
    figure = calibration_curves(curves)
    axis = figure.axes[0]
    lowest = min(float(min(curve.score.min(), curve.right.min())) for curve in curves.values()) - 0.05
    axis.set(xlim=(lowest, 1.01), ylim=(lowest, 1.01))  # most detections are nearly certain
    return figure


def pixel_phase() -> Figure:
    """Bias of x against the place in the pixel, from `benchmarks/bench_pixel_phase.py`."""
    figure = Figure(figsize=(6.4, 3.7), layout="constrained")
    axis = figure.subplots()
    axis.axhline(0.0, color=GREY, linewidth=0.9)
    for (name, rows), colour, style in zip(
        read_result("pixel_phase")["rows"].items(), LINE_COLOURS, ("-", "--", "-.", ":"), strict=False
    ):
        phase, bias, error = (
            np.array([row[key] for row in rows]) for key in ("phase_px", "bias_px", "standard_error_px")
        )
        axis.errorbar(
            phase, bias, error, color=colour, linestyle=style, linewidth=1.4, marker="o", markersize=3.5, label=name
        )
    axis.set(xlabel="distance of the target from the pixel's centre, px", ylabel="mean error of x, px")
    axis.grid(linewidth=0.4, alpha=0.5)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def training(ratio: int) -> Figure:
    """Training curves of the included networks at one ratio, collected by `scripts/training_logs.py`."""
    arrays = {
        name.removesuffix(f", ratio {ratio}"): {key: np.array(values, dtype=float) for key, values in log.items()}
        for name, log in read_result("training").items()
        if name.endswith(f"ratio {ratio}")
    }
    figure = training_curves(arrays, f"ratio {ratio}")
    figure.axes[1].autoscale(axis="y")  # the differences between networks are small
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    **{
        each.__name__: each
        for each in (
            imaging, ceiling, separation, flux, metric, cost, limits, sequences, psf, completeness, architecture,
            calibration,
        )
    },
    "pixel-phase": pixel_phase,
    **{f"training-ratio-{ratio}": partial(training, ratio) for ratio in TRAINED_RATIOS},
}  # fmt: skip
DIAGRAMS = ("architecture",)
"""Figures of lines and text only, written as SVG."""


def main() -> None:
    """Draw the figures that are named, or all."""
    for name in sys.argv[1:] or FIGURES:
        with styled():
            suffix = ".svg" if name in DIAGRAMS else ".png"
            save_figure(FIGURES[name](), ROOT / "docs" / "images" / f"{name}{suffix}")


if __name__ == "__main__":
    main()
