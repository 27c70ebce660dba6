"""A real frame without any settings.

A thermal image of a distant aeroplane. Background, noise and the width of the PSF are measured on the frame, then
blobs are detected and unmixed. The blob is longer than the PSF and is reported as one streak, not as several points.
"""

import sys
from pathlib import Path

import numpy as np

import csist
from csist.io import read_image, sample_frames
from csist.plots import frame_panel, save_figure


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    frame = read_image(sample_frames()["airplane_above_hills"])[0]

    result = csist.unmix_frame(frame, mode="fast")
    print(f"PSF {result.psf_origin}: sigma {result.psf.sigma_px:.2f} px, noise {np.median(result.noise):.1f} counts")
    print(result.targets.to_pandas()[["x", "y", "intensity", "x_std", "flags", "group"]].round(2).to_string())

    save_figure(frame_panel(frame, result.targets, result.model()), out / "02_real_frame.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
