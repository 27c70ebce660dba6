"""In which frames each target of a group is there: it may appear or leave within the sequence.

Given all paths, target k is there from frame a to frame b with one mean flux F. With m_t = p_t^T W r_t and
n_t = p_t^T W p_t of its response p_t and of what the other targets leave of frame t, the log likelihood against no
target is F M - F^2 N / 2, M and N the sums of m_t and n_t over these frames. Scintillation s makes the weight of a
frame 1 / (1 + s^2 F^2 n_t) of that. All intervals are compared, with a prior for the whole sequence.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._types import BoolArray, FloatArray
from csist.methods.continuous.sequence.model import Film
from csist.physics.psf import PSF

ALWAYS = 0.95
"""Prior probability that a target is there in all frames; the rest is shared by all other intervals of frames."""
ROUNDS = 3
"""Times that the interval and the flux of every target are found in turn."""


class Presence(NamedTuple):
    """When targets are there.

    Args:
        present: (targets, T) whether a target is there in a frame.
        flux: (targets,) mean flux in these frames.
    """

    present: BoolArray
    flux: FloatArray


def presence_of(film: Film, basis: FloatArray, mode: FloatArray, scintillation: float, psf: PSF) -> Presence:
    """The most probable frames of each target.

    Args:
        film: the frames.
        basis: (M, T) functions of time.
        mode: (targets, 2 M + 1) coefficients of the paths, and mean fluxes.
        scintillation: of the fluxes.
        psf: point spread function.
    """
    count, frames = len(mode), film.data.shape[0]
    place = np.einsum("kmc,mt->ktc", mode[:, :-1].reshape(count, -1, 2), basis)
    pixel = np.arange(film.data.shape[1])
    rows, columns = (film.origin[:, axis, None] + pixel for axis in range(2))
    light = np.stack([
        psf.response(columns[:, None, :] - each[:, 0, None, None], rows[:, :, None] - each[:, 1, None, None])
        for each in place
    ])  # fmt: skip
    weight, data = film.weight.astype(np.float64), film.data.astype(np.float64)
    power = np.einsum("kthw,thw->kt", light**2, weight)
    present, flux = np.ones((count, frames), np.bool_), mode[:, -1].copy()
    for _ in range(ROUNDS):
        for k in range(count):
            others = [o for o in range(count) if o != k]
            rest = data - np.einsum("k,kt,kthw->thw", flux[others], present[others], light[others])
            match = np.einsum("thw,thw->t", light[k], weight * rest)
            share = 1.0 / (1.0 + (scintillation * flux[k]) ** 2 * power[k])
            present[k], flux[k] = _interval(match * share, power[k] * share)
    return Presence(present, flux)


def _interval(match: FloatArray, power: FloatArray) -> tuple[BoolArray, float]:
    """The most probable interval of frames (T,), and the flux in it.

    Args:
        match: (T,) m_t of the module's text.
        power: (T,) n_t of it.
    """
    frames = len(match)
    sums = [np.concatenate([[0.0], np.cumsum(values)]) for values in (match, power)]
    total, norm = (each[None, 1:] - each[:-1, None] for each in sums)  # from frame, to frame
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(norm > 0.0, 0.5 * np.maximum(total, 0.0) ** 2 / norm, 0.0)
    gain -= math.log(frames * (frames + 1) / 2.0) + math.log(ALWAYS / (1.0 - ALWAYS))
    gain[np.tri(frames, dtype=np.bool_)] = -np.inf  # a path needs two frames
    gain[0, -1] = 0.5 * max(total[0, -1], 0.0) ** 2 / max(norm[0, -1], 1e-300)
    first, last = np.unravel_index(int(gain.argmax()), gain.shape)
    number = np.arange(frames)
    there = np.asarray((number >= first) & (number <= last))
    return there, float(max(total[first, last], 0.0) / max(norm[first, last], 1e-300))
