"""Four targets in one window.

Four targets inside one pixel merge into one blob. Given the sensor and the distribution of the scenes, the solver
returns positions, intensities and their errors. Subtracting the model from the image leaves only rounding errors.
"""

import sys
from pathlib import Path

import csist
from csist.plots import save_figure, unmixing_panel


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    sensor, prior = csist.Sensor(), csist.ScenePrior.csist_100k()
    truth = csist.Targets(x=[4.70, 5.30, 4.75, 5.35], y=[4.70, 4.75, 5.30, 5.40], intensity=[235, 245, 228, 240])
    image = sensor.observe(truth, rng=0)

    found = csist.unmix(image, sensor, prior, noise_std=0.0)
    print(found.to_pandas()[["x", "y", "intensity", "score", "x_std", "y_std"]].round(3).to_string())

    figure = unmixing_panel(image, found, sensor.render(found), truth)
    save_figure(figure, out / "01_one_window.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
