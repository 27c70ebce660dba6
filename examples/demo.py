"""Unmix a real infrared frame and 100 benchmark windows; write tables and one picture, print a summary.

Run it with `make demo`, or `python examples/demo.py [OUT]`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch, Ellipse, Rectangle
from rich.console import Console
from rich.table import Table

import csist
from csist.io import read_image, sample_frames, targets_table, write_table
from csist.metrics import count_accuracy, cso_map, match_errors
from csist.plots import DETECTION, STYLE, TRUTH, YELLOW, save_figure

FRAME = "airplane_above_hills.png"
WINDOWS, SEED = 100, 7
FOUND_WITHIN_PX = 0.25
SHOWN_COUNTS = (2, 3, 4, 5)
ZOOM_PX = 8.0
BRIGHTEST_GREY = 1.7
"""White level in units of the brightest pixel: above 1, so that the pixel is grey and the markers stand out."""

Scenes = list[csist.Targets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("out/demo"), help="folder of the results")
    parser.add_argument("--picture", type=Path, help="file of the figure; default: OUT/demo.png")
    options = parser.parse_args()
    out: Path = options.out
    picture: Path = options.picture or out / "demo.png"
    for folder in (out, picture.parent):
        folder.mkdir(parents=True, exist_ok=True)
    console = Console()

    # 1. Windows of the benchmark: 1 to 5 targets inside one pixel, counts rounded to whole numbers.
    sensor, prior = csist.Sensor(), csist.ScenePrior.csist_100k()
    rng = np.random.default_rng(SEED)
    truth = csist.sample_scenes(prior, sensor, WINDOWS, rng)
    windows = np.stack([sensor.observe(scene, rng) for scene in truth])
    console.print("Unmixing 100 benchmark windows and a frame; the first run compiles the solver")
    with console.status("benchmark windows"):
        csist.unmix(windows[:2], sensor, prior, noise_std=0.0)  # exclude compilation from the timing
        start = time.perf_counter()
        found = csist.unmix(windows, sensor, prior, noise_std=0.0)
        seconds = time.perf_counter() - start

    # 2. A real frame, without further information.
    frame = read_image(sample_frames()[Path(FRAME).stem])[0]
    with console.status("frame"):
        result = csist.unmix_frame(frame)
    detections = result.targets

    # 3. Tables, picture, summary.
    summary = (
        measure(truth, found) | {"images_per_second": WINDOWS / seconds, "frame": FRAME} | group_counts(detections)
    )
    write_table(targets_table((f"window_{k:03d}", 0, t) for k, t in enumerate(truth)), out / "windows_truth.csv")
    write_table(targets_table((f"window_{k:03d}", 0, t) for k, t in enumerate(found)), out / "windows_found.csv")
    write_table(targets_table([(FRAME, 0, detections)]), out / "frame_found.csv")
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    save_figure(draw(frame, detections, windows, truth, found), picture)
    report(console, summary, detections)
    console.print(
        f"PSF {result.psf_origin}: sigma {result.psf.sigma_px:.2f} px; noise {np.median(result.noise):.1f} counts; "
        f"threshold {result.threshold:.1f} standard deviations"
    )
    console.print(f"Tables: {out}/*.csv   picture: [bold]{picture}[/bold]")


def measure(truth: Scenes, found: Scenes) -> dict[str, float]:
    """Return the figures of the benchmark windows."""
    errors = match_errors(found, truth, FOUND_WITHIN_PX)
    return {
        "windows": len(truth),
        "hidden": sum(map(len, truth)),
        "reported": sum(map(len, found)),
        "found": len(errors),
        "count_accuracy": count_accuracy(found, truth),
        "CSO-mAP": cso_map(found, truth)["CSO-mAP"],
        "median_error_px": float(np.median(errors.distance_px)),
    }


def group_counts(detections: csist.Targets) -> dict[str, int]:
    """Return the number of blobs and targets of the frame."""
    return {"frame_blobs": len(np.unique(detections.group)), "frame_targets": len(detections)}


def found_in(detections: csist.Targets) -> str:
    """Describe the detections of the frame in words."""
    parts = {"target": len(detections), "blob": len(np.unique(detections.group))}
    return " in ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in parts.items())


def report(console: Console, summary: dict[str, float], detections: csist.Targets) -> None:
    """Print a summary of the results."""
    table = Table("100 benchmark windows", "", title_justify="left")
    table.columns[1].justify = "right"
    table.add_row("targets hidden", f"{summary['hidden']}")
    table.add_row(f"of these found within {FOUND_WITHIN_PX} px", f"{summary['found']}")
    table.add_row("windows with the right count", f"{summary['count_accuracy']:.0%}")
    table.add_row("CSO-mAP", f"{summary['CSO-mAP']:.1f}")
    table.add_row("median position error", f"{summary['median_error_px']:.3f} px")
    table.add_row("windows per second", f"{summary['images_per_second']:.0f}")
    console.print(table)
    console.print(f"{FRAME}: {found_in(detections)}")
    if len(detections):
        rows = Table("blob", "x (px)", "y (px)", "intensity (counts)")
        order = np.lexsort((-detections.intensity, detections.group))
        for target in detections[order[:10]]:
            rows.add_row(
                f"{target.group[0]}",
                with_error(target.x[0], target.x_std[0], 2),
                with_error(target.y[0], target.y_std[0], 2),
                with_error(target.intensity[0], target.intensity_std[0], 0),
            )
        console.print(rows)


def with_error(value: float, error: float, digits: int) -> str:
    """Format a value with its standard error, if known."""
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if np.isfinite(error) else "")


# --- the picture ------------------------------------------------------------------------------------------


def draw(frame: np.ndarray, detections: csist.Targets, windows: np.ndarray, truth: Scenes, found: Scenes) -> Figure:
    """Draw the frame with its targets on the left, and benchmark windows of 2 to 5 targets on the right."""
    with rc_context(STYLE):
        figure = Figure(figsize=(13.0, 4.7), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.45), wspace=0.02)
        draw_frame(left, frame, detections)
        draw_windows(right, windows, truth, found)
    return figure


def draw_frame(figure: SubFigure, frame: np.ndarray, detections: csist.Targets) -> None:
    """Draw the whole frame, with a close-up of its brightest blob in a corner."""
    figure.suptitle(f"A real infrared frame: {found_in(detections)} found", fontsize=12, fontweight="bold")
    axis = figure.subplots()
    low, high = np.nanpercentile(frame, [0.5, 99.9])
    axis.imshow(frame, cmap="gray", vmin=low, vmax=high)
    axis.set_xlabel("x in px")
    axis.set_ylabel("y in px")
    if not len(detections):
        return
    brightest = detections.group == detections.group[int(np.argmax(detections.intensity))]
    for group in np.unique(detections.group):
        blob = detections[detections.group == group]
        axis.add_patch(square(blob.x.mean(), blob.y.mean(), ZOOM_PX))
    x, y = detections[brightest].x.mean(), detections[brightest].y.mean()
    # In the upper half, which shows sky, on the side away from the blob.
    inset = axis.inset_axes((0.03 if x > frame.shape[1] / 2 else 0.60, 0.46, 0.37, 0.50))
    half = ZOOM_PX / 2
    around = frame[max(int(y - half), 0) : int(y + half) + 2, max(int(x - half), 0) : int(x + half) + 2]
    inset.imshow(frame, cmap="gray", vmin=around.min(), vmax=around.min() + BRIGHTEST_GREY * np.ptp(around))
    view(inset, x, y, ZOOM_PX, YELLOW)
    mark(inset, detections[brightest], None)
    corner = (x + half * np.sign(frame.shape[1] / 2 - x), y)
    axis.add_artist(
        ConnectionPatch(corner, (0.5, 0.5), axis.transData, inset.transAxes, color=YELLOW, linewidth=0.8, zorder=1)
    )


def draw_windows(figure: SubFigure, windows: np.ndarray, truth: Scenes, found: Scenes) -> None:
    """Draw the first window clear of the border for each count: the image, and its centre with the detections."""
    figure.suptitle("Benchmark windows", fontsize=12, fontweight="bold")
    axes = figure.subplots(2, len(SHOWN_COUNTS), gridspec_kw={"hspace": 0.0})
    for (above, below), count in zip(axes.T, SHOWN_COUNTS, strict=True):
        chosen = next(k for k, scene in enumerate(truth) if len(scene) == count and clear_of_border(scene, windows))
        x, y = (np.round(getattr(truth[chosen], name).mean()) for name in ("x", "y"))
        for axis in (above, below):
            axis.imshow(windows[chosen], cmap="gray", vmin=0.0, vmax=BRIGHTEST_GREY * windows[chosen].max())
        above.set_title(f"{count} targets")
        above.add_patch(square(x, y, 2.0))
        above.set_xticks([])
        above.set_yticks([])
        view(below, x, y, 2.0, YELLOW)
        mark(below, found[chosen], truth[chosen])
    axes[0, 0].set_ylabel("what the sensor sees")
    axes[1, 0].set_ylabel("what was hidden in it")
    handles = [
        Line2D([], [], linestyle="", marker="x", color=TRUTH, label="true target"),
        Line2D([], [], linestyle="", marker="o", mfc="none", mec=DETECTION, markersize=9, label="found by csist"),
        Line2D([], [], color=DETECTION, linewidth=0.8, label="2 standard errors"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def clear_of_border(scene: csist.Targets, windows: np.ndarray) -> bool:
    """Return whether the figure of a window shows the whole blob."""
    rows, columns = windows.shape[1:]
    return bool(np.all((scene.x > 2) & (scene.x < columns - 3) & (scene.y > 2) & (scene.y < rows - 3)))


def square(x: float, y: float, side: float) -> Rectangle:
    """Return the outline of a close-up centred on (x, y)."""
    return Rectangle((x - side / 2, y - side / 2), side, side, fill=False, edgecolor=YELLOW, linewidth=1.0)


def view(axis: Axes, x: float, y: float, side: float, colour: str) -> None:
    """Limit the axes to a square around (x, y)."""
    axis.set_xlim(x - side / 2, x + side / 2)
    axis.set_ylim(y + side / 2, y - side / 2)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, edgecolor=colour, linewidth=1.2)


def mark(axis: Axes, found: csist.Targets, truth: csist.Targets | None) -> None:
    """Draw crosses at the true targets, circles at the detections, and ellipses of two standard errors."""
    axis.scatter(found.x, found.y, s=90, facecolors="none", edgecolors=DETECTION, linewidths=1.6)
    for target in found:
        width, height = 4 * target.x_std[0], 4 * target.y_std[0]
        if np.isfinite(width) and np.isfinite(height):
            ellipse = Ellipse((target.x[0], target.y[0]), width, height, fill=False, edgecolor=DETECTION, linewidth=0.8)
            axis.add_patch(ellipse)
    if truth is not None:
        axis.scatter(truth.x, truth.y, s=50, marker="x", c=TRUTH, linewidths=1.6)


if __name__ == "__main__":
    main()
