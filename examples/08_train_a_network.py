"""A small ISTA-Net, trained for seconds.

Three stages and small windows, so that training takes seconds: the map of one image before and after training, beside
the true map. For a useful network, train the full size for hours with `csist train`.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import csist
from csist.metrics import psnr
from csist.plots import save_figure
from csist.plots.style import styled
from csist.training import TrainingConfig, train

SAMPLES = 4096
SENSOR = csist.Sensor(shape=(7, 7))


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        settings = TrainingConfig(
            output=folder, max_samples=SAMPLES, sensor=SENSOR, options={"stages": 3}, val_limit=64,
            validate_every=SAMPLES, accelerator="cpu",
        )  # fmt: skip
        result = train("ista-net", settings)
        network = csist.create_method("ista-net", SENSOR, pretrained=result.weights)
    untrained = csist.create_method("ista-net", SENSOR, pretrained=False, stages=3)
    truths = csist.sample_scenes(csist.ScenePrior.csist_100k(), SENSOR, 64, seed=5)
    images = np.stack([SENSOR.observe(truth, seed) for seed, truth in enumerate(truths)])
    true = np.stack([network.grid.encode(truth) for truth in truths])
    maps = {"before training": untrained.predict_maps(images), "after training": network.predict_maps(images)}
    for name, cells in maps.items():
        print(f"{name}: PSNR {psnr(cells, true):.1f} dB")
    chosen = next(k for k, truth in enumerate(truths) if len(truth) == 3)
    with styled():
        figure = Figure(figsize=(9.6, 2.9), layout="constrained")
        shown = {"image": images, "true map": true, **maps}
        for axis, (title, values) in zip(figure.subplots(1, 4), shown.items(), strict=True):
            top = images[chosen].max() if title == "image" else true[chosen].max()
            axis.imshow(values[chosen], cmap="gray", vmin=0, vmax=top, extent=(-0.5, 6.5, 6.5, -0.5))
            axis.set(title=title, xlabel="x in px")
        figure.axes[0].set_ylabel("y in px")
    save_figure(figure, out / "08_train_a_network.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
