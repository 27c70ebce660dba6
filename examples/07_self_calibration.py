"""Width of the PSF, measured on images with unknown targets.

Cameras with different blur record benchmark scenes over an unknown background. Starting from "about 0.5 px",
`calibrate` estimates the width and the background of each camera.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import csist
from csist.plots import save_figure
from csist.plots.style import BLUE, GREY, styled

SIGMAS_PX = (0.46, 0.50, 0.54)
IMAGES = 80


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    prior = csist.ScenePrior.csist_100k()
    guess = csist.Sensor(csist.GaussianPSF(0.5), read_noise=1.0)
    results = []
    for sigma in SIGMAS_PX:
        camera = csist.Sensor(csist.GaussianPSF(sigma), background=30.0, read_noise=1.0)
        scenes = csist.sample_scenes(prior, camera, IMAGES, seed=1)
        images = np.stack([camera.observe(scene, seed) for seed, scene in enumerate(scenes)])
        result = csist.calibrate(images, guess, prior)
        results.append(result)
        print(
            f"true {sigma:.2f} px: found {result.sigma_px:.4f} +- {result.sigma_px_std:.4f} px, background "
            f"{result.background:.2f} +- {result.background_std:.2f}, from {result.images_used} windows"
        )
    with styled():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axis = figure.subplots()
        error = 1000.0 * (np.array([each.sigma_px for each in results]) - SIGMAS_PX)
        axis.errorbar(SIGMAS_PX, error, [1000.0 * each.sigma_px_std for each in results], marker="o", ls="", color=BLUE)
        axis.axhline(0.0, color=GREY, linewidth=0.9)
        axis.set_xticks(SIGMAS_PX)
        axis.set(xlabel="true sigma in px", ylabel="found minus true, in thousandths of a px")
        axis.set_title("bars: the stated standard error")
    save_figure(figure, out / "07_self_calibration.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
