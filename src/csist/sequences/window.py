"""The joint posterior of a window in which one group moves."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from csist._types import BoolArray, FloatArray
from csist.methods.continuous.sequence.solver import PATH_EFFORTS, SEED, PathSolver
from csist.physics.sensor import Sensor
from csist.sequences.fluxes import with_own_fluxes
from csist.sequences.motion import SCINTILLATIONS, degree_of, motion_law
from csist.sequences.report import summarise_paths
from csist.sequences.result import SequenceResult
from csist.sequences.shake import Middles, Shake, displacements, shake_of, steady
from csist.targets import Flag
from csist.trajectories import MotionPrior

AGAIN = (1, 2)
"""Added to the seed of the chains where no prior explains the frames."""
SHAKE_ROUNDS = 2
"""Times that the shifts of the frames are found beside the paths: those of a shaken group are blurred at first."""


class Frames(NamedTuple):
    """The frames of a sequence as they are used.

    Args:
        data: (T, H, W) in counts, background subtracted, 0 where there is no value.
        weight: (T, H, W) inverse variances, 0 where there is no value.
        saturated: whether pixels were left out because they are at an end of the converter's range.
        masked: whether pixels were left out because they are NaN.
    """

    data: FloatArray
    weight: FloatArray
    saturated: bool
    masked: bool


class Window(NamedTuple):
    """A window and what is known of it.

    Args:
        frames: of the window.
        time: (T,) of the frames.
        sensor: of the frames.
        prior: of the first frame, speeds and scintillation.
        motion: one of `csist.sequences.motion.MOTIONS`.
        motion_std_px: step of the random walk of "free" in px per unit of time.
        noise_std: of a pixel in counts, for the faintest targets.
        mode: "accurate" or "fast".
    """

    frames: Frames
    time: FloatArray
    sensor: Sensor
    prior: MotionPrior
    motion: str
    motion_std_px: float
    noise_std: float
    mode: str


class Answer(NamedTuple):
    """What one prior says of a sequence.

    Args:
        result: the posterior.
        evidence: its log evidence, less what the shifts of a camera that shakes have to bring.
        prior: of the motion.
        seed: of the random numbers.
        shake: of the camera.
    """

    result: SequenceResult
    evidence: float
    prior: MotionPrior
    seed: int
    shake: Shake

    @property
    def is_explained(self) -> bool:
        """Whether the paths explain the frames."""
        return Flag.POOR_FIT not in self.result.flags


def prepared(images: FloatArray, used: BoolArray, sensor: Sensor, noise: float) -> Frames:
    """Frames with weights; clipped pixels are left out, shot noise is taken from the light around each pixel."""
    variance = np.full(images.shape, max(noise**2 + sensor.rounding_variance, 1e-12))
    seen = np.isfinite(images)
    clipped = seen & ((images >= sensor.ceiling) | (images <= sensor.floor))
    data = np.where(seen, images - sensor.background, 0.0)
    if sensor.gain is not None:
        variance += np.maximum(uniform_filter(data, (0, 3, 3)) + sensor.background, 0.0) / sensor.gain
    usable = seen & ~clipped & used[:, None, None]
    return Frames(
        np.where(usable, data, 0.0), np.where(usable, 1.0 / variance, 0.0), bool(clipped.any()),
        bool((~seen[used]).any()),
    )  # fmt: skip


def unmix_window(window: Window, keeps_prior: bool) -> SequenceResult:
    """The joint posterior of a window.

    It is that of the first prior that explains the frames, else of that with the highest evidence: higher speeds and
    scintillations are tried too. A camera that shakes is looked for beside what the first prior says, and beside what
    another one does.

    Args:
        window: the frames.
        keeps_prior: whether no other speeds and scintillations are tried.
    """
    first = window.prior
    faster = [] if keeps_prior else _faster(window)
    fastest = [first, *faster][-1]
    varying = [replace(fastest, scintillation=each) for each in SCINTILLATIONS if each > first.scintillation]
    # Chains can miss the paths of targets that cross, so that the fastest prior is tried with other random numbers too.
    tries = [
        *((prior, SEED) for prior in faster),
        *((fastest, SEED + n) for n in AGAIN),
        *((prior, SEED) for prior in ([] if keeps_prior else varying)),
    ]
    found = _steadied(window, _solved(window, first, SEED, steady(len(window.time))))
    for prior, seed in tries:
        if found.is_explained:
            break
        other = _solved(window, prior, seed, steady(len(window.time)))
        found = other if other.evidence > found.evidence else found
    found = found if found.prior is first else _steadied(window, found)
    frames = with_own_fluxes(
        window.frames.data, window.frames.weight, found.result.frames, window.sensor.psf, found.prior.scintillation
    )
    return replace(found.result, frames=frames, notes=_notes(found, first))


def _solved(window: Window, prior: MotionPrior, seed: int, shake: Shake) -> Answer:
    """What a prior says of a window whose camera shakes."""
    frames, time = window.frames, window.time
    law = motion_law(time - time[0], window.motion, prior, window.sensor, window.noise_std, window.motion_std_px)
    solver = PathSolver(window.sensor, prior.start, law, PATH_EFFORTS[window.mode], seed)
    found = solver.solve(frames.data, frames.weight, shift=shake.shift)
    result = summarise_paths(found, law, time, frames.weight, (frames.saturated, frames.masked), [])
    if shake.price > 0.0:
        result = replace(result, frames=shake.applied(result.frames), shift_px=shake.shift)
    return Answer(result, float(found.log_evidence.max()) - 0.5 * shake.price, prior, seed, shake)


def _steadied(window: Window, answer: Answer) -> Answer:
    """An answer, or that of a camera that shakes as the light of the frames lies beside it, if this is better."""
    best = answer
    if _shake_beside(window, answer, exact=False) is None:
        return answer
    for _ in range(SHAKE_ROUNDS):
        shake = _shake_beside(window, answer)
        if shake is None or (np.abs(shake.shift - answer.shake.shift) <= shake.std[:, None]).all():
            break
        answer = _solved(window, answer.prior, answer.seed, shake)
        if answer.is_explained and answer.evidence > best.evidence:
            best = answer
    return best


def _shake_beside(window: Window, answer: Answer, exact: bool = True) -> Shake | None:
    """How the camera shakes by the light beside an answer, which allows for what is known of it."""
    frames = window.frames
    place, error = displacements(frames.data, frames.weight, answer.result.frames, window.sensor.psf, exact)
    degree = np.array([degree_of(window.motion, int(frames.weight.any(axis=(1, 2)).sum()))])
    return shake_of(Middles((answer.shake.shift + place)[None], error[None], degree), window.time)


def _notes(found: Answer, first: MotionPrior) -> list[str]:
    """What the user should know of an answer, of which another prior than the first may be the reason."""
    notes, used, result = [], found.prior, found.result
    if result.shift_px is not None:
        notes.append(
            f"the group moves by {found.shake.rms_px:.2g} px (rms of x and of y) beside its path: the camera is taken "
            "to shake, and tracks are paths without that; if it is the group that manoeuvres, state another motion"
        )
    if used.group_speed_px > first.group_speed_px:
        notes.append(
            f"the targets move faster than the default prior's {first.group_speed_px:g} px: "
            f"up to {used.group_speed_px:.2g} px is allowed"
        )
    if used.scintillation > first.scintillation:
        notes.append(
            f"the fluxes vary by more than the default prior's {first.scintillation:.0%}: "
            f"by {used.scintillation:.0%} is allowed"
        )
    if Flag.POOR_FIT in result.flags:
        notes.append(
            "the paths do not explain the frames: state the PSF, the noise or the background, another motion, or a "
            "MotionPrior with larger speeds or scintillation"
        )
    return notes


def _faster(window: Window) -> list[MotionPrior]:
    """Speeds up to half the window in the sequence: of the group, then also of each target in it.

    There are none where the prior allows them already.
    """
    speed = max(window.sensor.shape) / (2.0 * float(window.time[-1] - window.time[0]))
    group = replace(window.prior, group_speed_px=speed)
    return [group, replace(group, own_speed_px=speed)] if speed > window.prior.group_speed_px else []
