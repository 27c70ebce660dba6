"""Posterior of one blob, and probability of the count.

Left: posterior samples of the positions of four targets, one colour per target. The clouds are elongated and
correlated: if one target moves, the others move too. Right: probability of the count for two targets under the flat
prior, against their separation. When the two merge, the probabilities show that the count is uncertain.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import csist
from csist.methods.continuous import Continuous
from csist.plots import save_figure
from csist.plots.style import BLUE, GREEN, LINE_COLOURS, VERMILION, styled

IMAGES = 12
"""Images at each separation, over which the probabilities are averaged."""


def draw_clouds(axis: Axes) -> None:
    sensor, prior = csist.Sensor(read_noise=1.0), csist.ScenePrior.csist_100k()
    truth = csist.Targets(x=[4.7, 5.3, 4.75, 5.35], y=[4.7, 4.75, 5.3, 5.4], intensity=[235, 245, 228, 240])
    method = Continuous(sensor, prior=prior, noise_std=1.0)
    _, groups = method.solve(sensor.observe(truth, rng=0), keep_samples=True)
    samples = groups[0].samples
    for target, colour in zip(np.moveaxis(samples, 1, 0), LINE_COLOURS, strict=False):
        axis.scatter(target[:, 0], target[:, 1], s=5, color=colour, alpha=0.35, linewidths=0)
    axis.scatter(truth.x, truth.y, s=60, marker="x", c="black", label="true target", zorder=3)
    axis.set(xlim=(4.45, 5.55), ylim=(5.55, 4.45), aspect="equal", xlabel="x in px", ylabel="y in px")
    axis.set_title("samples of the posterior")
    axis.legend(loc="upper right")


def draw_counts(axis: Axes) -> None:
    sensor = csist.Sensor(read_noise=4.0)
    apart = np.linspace(0.1, 1.0, 10)
    pairs = [csist.Targets(x=[5.1 - d / 2, 5.1 + d / 2], y=[4.9, 4.9], intensity=[400, 400]) for d in apart]
    rng = np.random.default_rng(0)
    images = np.stack([sensor.observe(pair, rng) for pair in pairs for _ in range(IMAGES)])
    _, groups = Continuous(sensor, mode="fast").solve(images)
    chances = np.array([group.count_probability for group in groups]).reshape(len(apart), IMAGES, -1).mean(axis=1)
    for label, values, colour in (
        ("one target", chances[:, 1], VERMILION),
        ("two targets", chances[:, 2], BLUE),
        ("more", chances[:, 3:].sum(axis=1), GREEN),
    ):
        axis.plot(apart, values, marker="o", color=colour, label=label)
        print(f"{label}: {', '.join(f'{value:.2f}' for value in values)}")
    axis.set(xlabel="true separation in px", ylabel="probability", ylim=(-0.03, 1.03))
    axis.set_title("how many, under the flat prior")
    axis.grid(linewidth=0.4, alpha=0.5)
    axis.legend(loc="center right")


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with styled():
        figure = Figure(figsize=(9.0, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
        draw_clouds(left)
        draw_counts(right)
    save_figure(figure, out / "04_uncertainty.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
