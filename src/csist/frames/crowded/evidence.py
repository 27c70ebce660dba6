"""What the image says of the number of targets in each group of a crowded frame.

The joint fit (`csist.frames.crowded.fit`) says where targets are, not how probable their number is. Each small group is
therefore unmixed once more in a window of its own by `csist.methods.continuous`, with the fitted background and the
light of all other groups subtracted. Its evidence holds for counts that are equally probable beforehand. In a field of
known density they are not: the number of targets in a window has a Poisson distribution, by which it is weighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import gammaln

from csist._types import FloatArray, IntArray
from csist.frames.crowded.model import CrowdedFrame
from csist.methods.continuous import Continuous
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, with_room_for_light
from csist.targets import Flag, Targets

MARGIN_SIGMAS, MARGIN_PX = 3.0, 2
"""Margin of a group's window around its targets, in sigma of the PSF and in px beside that."""
FEWEST_PIXELS = 9


@dataclass(frozen=True, eq=False)
class GroupEvidence:
    """What the image says of one group.

    Args:
        probability: (n,) of 0, 1, 2, ... targets; empty where it is not known.
        targets: that the window was unmixed into, in frame coordinates, but for those too faint to be detected alone;
            none where they do not explain it.
    """

    probability: FloatArray
    targets: Targets

    def contradicts(self, count: int, improbable: float) -> bool:
        """Whether a number of targets is less probable than `improbable`, and the number found the most probable."""
        if not self.probability.size or not len(self.targets):
            return False
        return bool(self.probability[count] < improbable and self.probability.argmax() == len(self.targets))


def window_around(frame: CrowdedFrame, x: FloatArray, y: FloatArray) -> tuple[slice, slice]:
    """(rows, columns) of the window around targets at x and y in px, inside the frame."""
    margin = int(np.ceil(MARGIN_SIGMAS * frame.sigma_px)) + MARGIN_PX
    return (
        slice(max(round(y.min()) - margin, 0), min(round(y.max()) + margin + 1, frame.shape[0])),
        slice(max(round(x.min()) - margin, 0), min(round(x.max()) + margin + 1, frame.shape[1])),
    )


@dataclass(frozen=True, eq=False)
class GroupWeigher:
    """Weighs the number of targets in each group of a fitted frame.

    Args:
        frame: the frame, with the noise and the gain of its fit.
        level: (H, W) fitted background in counts.
        targets: all fitted targets.
        prior: of the fluxes, and of the largest number of targets in a window.
        mode: "accurate" or "fast".
        least_flux: flux in counts with which a target is detected alone.
    """

    frame: CrowdedFrame
    level: FloatArray
    targets: Targets
    prior: ScenePrior
    mode: str
    least_flux: float = 0.0

    @cached_property
    def light(self) -> FloatArray:
        """(H, W) of all targets, in counts."""
        return Sensor(self.frame.psf, self.frame.shape, quantised=False).render(self.targets)

    @cached_property
    def weight(self) -> FloatArray:
        """(H, W) inverse standard deviation of a pixel in counts; 0 where it is not valid."""
        return self.frame.weight(self.light)

    @cached_property
    def residual(self) -> FloatArray:
        """(H, W) what the fit leaves, in counts; 0 where it is not valid."""
        return np.where(self.frame.valid, self.frame.image - self.level - self.light, 0.0)

    @cached_property
    def density(self) -> float:
        """Targets a pixel."""
        return len(self.targets) / max(int(self.frame.valid.sum()), 1)

    def weigh(self, members: IntArray) -> GroupEvidence:
        """The evidence of one group.

        Args:
            members: (m,) indices of its targets.
        """
        known = self.targets[members]
        rows, columns = window_around(self.frame, known.x, known.y)
        weight, residual = self.weight[rows, columns], self.residual[rows, columns]
        pixels = int((weight > 0.0).sum())
        if pixels < FEWEST_PIXELS or len(members) >= self.prior.count_range[1]:
            return GroupEvidence(np.empty(0), known)
        own = known.shifted(-columns.start, -rows.start)
        middle = (float(known.x.mean()), float(known.y.mean()))
        sensor = Sensor(self.frame.psf.at(*middle), (weight.shape[0], weight.shape[1]), quantised=False)
        data = np.where(weight > 0.0, residual + sensor.render(own), np.nan)
        noise = self.frame.noise_std
        prior = with_room_for_light(self.prior, data, sensor, noise)
        method = Continuous(sensor, prior=prior, mode=self.mode, noise_std=noise, mask_nan=True, workers=1)
        error = 1.0 / np.where(weight > 0.0, weight, np.nan)
        found, groups = method.solve(data, error=error, start=[np.stack([own.x, own.y], axis=1)])
        probability = self.with_density(groups[0].count_probability, pixels)
        if Flag.POOR_FIT in groups[0].flags:
            return GroupEvidence(probability, Targets.empty())
        clear = found[0][found[0].intensity >= self.least_flux]
        return GroupEvidence(probability, clear.shifted(columns.start, rows.start))

    def with_density(self, probability: FloatArray, pixels: int) -> FloatArray:
        """The probability (n,) of 0, 1, 2, ... targets in a window, given the density of the field."""
        number = np.arange(len(probability))
        weighted = probability * np.exp(number * np.log(self.density * pixels) - gammaln(number + 1.0))
        return np.asarray(weighted / weighted.sum())


def weigh_groups(weigher: GroupWeigher, groups: Sequence[IntArray], workers: int) -> list[GroupEvidence]:
    """The evidence of each group, given by the indices of its targets."""
    if workers == 1:
        return list(map(weigher.weigh, groups))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(weigher.weigh, groups))
