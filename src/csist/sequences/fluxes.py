"""Fluxes of the targets of a sequence in each of its frames: their light curves.

Given the positions, frame t is linear in its fluxes f. With d the frame, P the responses of unit flux, W the weights,
and the prior f_k ~ N(F_k, (s F_k)^2) of a target with the mean flux F_k and the scintillation s, their posterior is
normal, with the precision P^T W P + diag(1 / (s F_k)^2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csist._types import FloatArray
from csist.physics.psf import PSF
from csist.targets import Targets


def with_own_fluxes(
    data: FloatArray, weight: FloatArray, frames: Sequence[Targets], psf: PSF, scintillation: float
) -> list[Targets]:
    """The targets of frames with the flux of each frame in place of the mean flux of all.

    Args:
        data: (T, H, W) in counts, background subtracted.
        weight: (T, H, W) inverse variances, 0 where there is no value; a frame without any keeps the mean fluxes.
        frames: targets of each frame, in its pixels; the errors of their fluxes hold the scintillation.
        psf: point spread function.
        scintillation: standard deviation of a flux from frame to frame, as a share of its mean.
    """
    if scintillation <= 0.0:
        return list(frames)
    rows, columns = np.indices(data.shape[1:])
    result = []
    for image, precision, targets in zip(data, weight, frames, strict=True):
        mean = targets.intensity
        if not len(targets) or not precision.any() or (mean <= 0.0).any():
            result.append(targets)
            continue
        spread = scintillation * mean
        light = psf.response(columns - targets.x[:, None, None], rows - targets.y[:, None, None])
        light, weights = light.reshape(len(targets), -1), precision.ravel()
        covariance = np.linalg.inv((light * weights) @ light.T + np.diag(spread**-2.0))
        flux = covariance @ (light @ (weights * image.ravel()) + mean / spread**2)
        of_mean = np.maximum(targets.intensity_std**2 - spread**2, 0.0)
        deviation = np.sqrt(np.diag(covariance) + of_mean)
        result.append(targets.replace(intensity=np.maximum(flux, 0.0), intensity_std=deviation))
    return result
