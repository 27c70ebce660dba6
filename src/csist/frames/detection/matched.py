"""The matched filter, for frames limited by noise, star fields among them.

In white noise it is the most sensitive linear filter for a target of known shape (North, 1943; Turin, IRE Trans. Inf.
Theory 6, 311, 1960). It is applied to the background-subtracted frame, in units of its own noise.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import oaconvolve

from csist._types import BoolArray, FloatArray
from csist.frames.background.estimate import Background, local_scatter
from csist.physics.psf import PSF, pixel_kernel

SCATTER_BOX_PX = 96
"""Side of the boxes in which the local scatter of the filter's response is measured."""


def matched_map(frame: FloatArray, background: Background, psf: PSF, masked: BoolArray | None = None) -> FloatArray:
    """Significance (H, W) of the matched filter.

    Each pixel is first divided by its own noise; near edges and masked pixels the filter is renormalised to the valid
    pixels, z = sum(p d / s) / sqrt(sum(p^2)) over these. In white noise that is exact; where z scatters by more than 1
    between the sources (correlated noise, confusion), it is divided by its own clipped local scatter.

    Args:
        frame: (H, W) in counts.
        background: level and noise in counts.
        psf: point spread function.
        masked: (H, W) pixels to leave out; they have no significance.
    """
    normalised = (frame - background.level) / background.noise
    valid = np.isfinite(normalised) if masked is None else np.isfinite(normalised) & ~masked
    kernel = pixel_kernel(psf)[::-1, ::-1]
    top = oaconvolve(np.where(valid, normalised, 0.0), kernel, mode="same")
    seen = oaconvolve(valid.astype(np.float64), kernel**2, mode="same")
    # Nothing can be measured where the central pixel is missing.
    z = np.where(valid, top / np.sqrt(np.maximum(seen, 0.1 * (kernel**2).sum())), np.nan)
    return np.nan_to_num(z / np.maximum(local_scatter(z, SCATTER_BOX_PX, 1.0), 1.0), nan=0.0)
