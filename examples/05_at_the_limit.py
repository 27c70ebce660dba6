"""Errors compared with the Cramer-Rao bound.

Many images of pairs with known count, for a range of separations. The line is the Cramer-Rao bound, the smallest
standard error of an unbiased estimate. Close pairs lie below it, because the estimate is biased by the prior, which
states that intensities lie between 200 and 300 counts.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import csist
from csist.metrics import match_errors
from csist.physics.bounds import cramer_rao_bound
from csist.plots import save_figure
from csist.plots.style import BLUE, VERMILION, styled

IMAGES = 40
SENSOR = csist.Sensor(read_noise=1.0)
PRIOR = csist.ScenePrior(
    count_range=(2, 2), intensity_range=(200.0, 300.0), intensity_law="uniform", min_separation_px=0.1
)


def pair(separation: float) -> csist.Targets:
    return csist.Targets(x=[5.0 - separation / 2, 5.0 + separation / 2], y=[5.1, 5.1], intensity=[240, 250])


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    apart = np.array([0.5, 0.7, 0.9, 1.2, 1.6, 2.0])
    rng = np.random.default_rng(0)
    errors = []
    for separation in apart:
        truth = pair(separation)
        images = np.stack([SENSOR.observe(truth, rng) for _ in range(IMAGES)])
        found = csist.unmix(images, SENSOR, PRIOR, mode="fast", noise_std=1.0)
        matched = match_errors(found, [truth] * IMAGES)
        errors.append(float(np.sqrt(np.mean(matched.dx**2))))
        print(f"{separation:.1f} px apart: rms error of x {errors[-1]:.4f} px")
    fine = np.linspace(0.4, 2.1, 60)
    bound = [float(np.sqrt(np.mean(cramer_rao_bound(pair(each), SENSOR).x ** 2))) for each in fine]
    with styled():
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axis = figure.subplots()
        axis.plot(fine, bound, color=BLUE, linewidth=1.8, label="Cramer-Rao bound")
        bars = np.array(errors) / np.sqrt(2.0 * 2 * IMAGES)  # standard error of a root mean square
        axis.errorbar(apart, errors, bars, color=VERMILION, marker="o", linestyle="", label="continuous")
        axis.set_yscale("log")
        axis.set(xlabel="separation in px", ylabel="error of x in px (root mean square)")
        axis.grid(linewidth=0.4, alpha=0.5)
        axis.legend()
    save_figure(figure, out / "05_at_the_limit.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
