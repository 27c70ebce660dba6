"""Three cameras observe the same pair.

A Gaussian PSF, an Airy pattern with shot noise, and a measured PSF with a converter that clips. Each window is
unmixed with its own sensor. In the last window the brightest pixel is clipped and enters the fit as a lower bound.
"""

import sys
from pathlib import Path

import numpy as np

import csist
from csist.plots import View, save_figure, window_gallery


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    truth = csist.Targets(x=[4.6, 5.9], y=[4.9, 5.3], intensity=[900, 1300])
    airy = csist.AiryPSF(1.3)
    offset = np.arange(-15, 16) / 3
    comatic = airy.response(offset[None, :], offset[:, None]) + 0.5 * airy.response(
        offset[None, :] - 0.5, offset[:, None]
    )
    cameras = {
        "Gaussian PSF, read noise": csist.Sensor(csist.GaussianPSF(0.6), read_noise=2.0),
        "Airy PSF, background, shot noise": csist.Sensor(airy, background=100.0, read_noise=2.0, gain=2.0),
        "measured PSF, clipped at 8 bits": csist.Sensor(csist.SampledPSF(comatic, 3), read_noise=2.0, bits=8),
    }
    views = []
    for title, sensor in cameras.items():
        image = sensor.observe(truth, rng=2)
        found = csist.unmix(image, sensor, mode="fast")
        flags = csist.Flag(int(np.bitwise_or.reduce(found.flags)))
        print(f"{title}: {len(found)} targets, flags {flags.name or 'none'}")
        model = np.minimum(sensor.render(found), sensor.ceiling)
        views.append(View(image, model, found, truth, title))
    save_figure(window_gallery(views), out / "03_own_sensor.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
