"""From a crowded frame to its targets and groups: the joint fit, corrected where a group's evidence contradicts it.

The joint fit decides on each target by its significance. Where the number of targets in a group is improbable by the
group's own evidence (`csist.frames.crowded.evidence`), the targets of the most probable number take their place, and
all targets are fitted together once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray
from csist.frames.crowded.evidence import GroupEvidence, GroupWeigher, weigh_groups, window_around
from csist.frames.crowded.fit import fit_together, is_unexplained, standard_errors, state
from csist.frames.crowded.model import CrowdedFit, CrowdedFrame, PatchBackground
from csist.frames.crowded.solve import LAST_STEPS, fit_crowded
from csist.frames.grouping import link
from csist.frames.groups import FrameGroup, ambiguity, pixel_flags, probability_within
from csist.frames.masks.mask import PixelMask
from csist.methods.continuous.group import is_poor_fit
from csist.methods.continuous.posterior import TOLERANCES_PX
from csist.physics.psf import RAYLEIGH_PER_SIGMA
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

IMPROBABLE = 0.1
"""Probability of the number of targets in a group below which the most probable number takes its place."""
RIGHT_AT_ALL = 0.5
"""Share of targets that are right where the number of targets in their group is not."""


@dataclass(frozen=True, eq=False)
class CrowdedResult:
    """What was found in a crowded frame.

    Args:
        targets: brightest first. `score` is the probability that a target lies within 0.25 px.
        groups: targets closer than 1 R are one group.
        background: that was fitted with the targets.
        frame: with the noise, the gain and the error of the PSF of the fit.
    """

    targets: Targets
    groups: list[FrameGroup]
    background: PatchBackground
    frame: CrowdedFrame


def unmix_crowded(
    frame: CrowdedFrame,
    threshold: float,
    pixels: PixelMask,
    *,
    prior: ScenePrior,
    mode: str,
    workers: int = 1,
    named: tuple[tuple[float, float], ...] = (),
) -> CrowdedResult:
    """Targets and groups of a crowded frame.

    Args:
        frame: the frame.
        threshold: least flux of a target in its standard errors.
        pixels: which pixels are usable.
        prior: of the fluxes, and of the largest number of targets in a group.
        mode: effort with which groups are weighed, "accurate" or "fast".
        workers: threads that weigh them.
        named: positions x and y in px at which targets are tried first.
    """
    frame, fit = fit_crowded(frame, threshold, named)
    if not len(fit.targets):
        return CrowdedResult(Targets.empty(), [], PatchBackground.of(frame, fit), frame)
    labels = link(fit.targets[:, :2], RAYLEIGH_PER_SIGMA * frame.sigma_px)
    level = PatchBackground.of(frame, fit).spread().level
    weigher = GroupWeigher(frame, level, Targets(*fit.targets.T), prior, mode, threshold * frame.lone_error)
    evidence = weigh_groups(weigher, [np.flatnonzero(labels == label) for label in range(labels.max() + 1)], workers)
    fit, labels = _corrected(frame, fit, labels, evidence)
    order = np.argsort(-fit.targets[:, 2], kind="stable")
    fit, labels = replace(fit, targets=fit.targets[order]), labels[order]
    targets, groups = _described(frame, fit, pixels, labels, [each.probability for each in evidence])
    return CrowdedResult(targets, groups, PatchBackground.of(frame, fit), frame)


def _corrected(
    frame: CrowdedFrame, fit: CrowdedFit, labels: IntArray, evidence: Sequence[GroupEvidence]
) -> tuple[CrowdedFit, IntArray]:
    """The fit with the most probable number of targets where that of a group is improbable, and their groups.

    Args:
        frame: the frame.
        fit: joint fit of n targets.
        labels: (n,) group of each.
        evidence: of each group.
    """
    tree = KDTree(fit.targets[:, :2])
    parts, owners = [], []
    for label, known in enumerate(evidence):
        if not known.contradicts(int((labels == label).sum()), IMPROBABLE):
            continue
        found = np.stack([known.targets.x, known.targets.y, known.targets.intensity], axis=1)
        # What is nearest to a target of another group is what the joint fit left of that one.
        own = found[labels[tree.query(found[:, :2])[1]] == label]
        parts.append(own)
        owners.append(np.full(len(own), label))
    if not parts:
        return fit, labels
    corrected = np.concatenate(owners)
    kept = ~np.isin(labels, corrected)
    targets = np.concatenate([fit.targets[kept], *parts])
    new = fit_together(frame, CrowdedFit(targets, fit.nodes), LAST_STEPS)
    own = np.concatenate([labels[kept], corrected])
    unclear = new.targets[:, 2] < standard_errors(frame, *state(frame, new)[1:], new)[:, 2]
    lost = np.intersect1d(own[unclear], corrected)
    if not lost.size:
        return new, own
    # Targets that all others explain as well: the joint fit of the whole frame has not confirmed the correction.
    without = [replace(each, targets=Targets.empty()) if k in lost else each for k, each in enumerate(evidence)]
    return _corrected(frame, fit, labels, without)


def _described(
    frame: CrowdedFrame, fit: CrowdedFit, pixels: PixelMask, labels: IntArray, probabilities: Sequence[FloatArray]
) -> tuple[Targets, list[FrameGroup]]:
    """Targets with errors, scores and flags, and their groups, numbered by their first targets.

    Args:
        frame: the frame.
        fit: joint fit of n targets, brightest first.
        pixels: which pixels are usable.
        labels: (n,) group of each target, from 0.
        probabilities: of 0, 1, 2, ... targets in each of these groups; empty where they are not known.
    """
    residual, weight, design = state(frame, fit)
    unit, (x, y, flux) = (weight * residual).reshape(frame.shape), fit.targets.T
    x_std, y_std, flux_std = standard_errors(frame, weight, design, fit).T
    flags = pixel_flags(pixels, fit.targets[:, :2], int(np.ceil(2.0 * frame.sigma_px + 0.5)))
    flags |= np.where(is_unexplained(frame, unit.ravel(), fit.targets), int(Flag.POOR_FIT), 0)
    kept, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[labels]
    groups = [
        _group(frame, unit, Targets(x, y, flux, intensity_std=flux_std, flags=flags, group=number), k, probabilities[i])
        for k, i in enumerate(kept[np.argsort(first)])
    ]
    sure = np.array([group.probability_of_count for group in groups])[number]
    score = probability_within(float(TOLERANCES_PX[-1]), x_std, y_std) * (sure + RIGHT_AT_ALL * (1.0 - sure))
    doubtful = np.array([int(group.flags & Flag.AMBIGUOUS_COUNT) for group in groups])[number]
    stated = {"x_std": x_std, "y_std": y_std, "intensity_std": flux_std}
    return Targets(x, y, flux, score, **stated, flags=flags | doubtful, group=number), groups


def _group(frame: CrowdedFrame, unit: FloatArray, targets: Targets, number: int, probability: FloatArray) -> FrameGroup:
    """What is reported of a group.

    Args:
        frame: the frame.
        unit: (H, W) residual of the fit in units of the noise; 0 where it is not valid.
        targets: of all groups.
        number: of the group.
        probability: of 0, 1, 2, ... targets; empty where it is not known.
    """
    own = targets[targets.group == number]
    window = window_around(frame, own.x, own.y)
    inside = unit[window]
    misfit, freedom = float((inside**2).sum()), max(int(frame.valid[window].sum()) - 3 * len(own), 1)
    flags = Flag(int(np.bitwise_or.reduce(own.flags))) | ambiguity(probability, len(own))
    return FrameGroup(
        number=number,
        column=window[1].start,
        row=window[0].start,
        shape=(inside.shape[0], inside.shape[1]),
        peaks=len(own),
        windows=1,
        significance=float((own.intensity / own.intensity_std).max()),
        count=len(own),
        count_probability=probability,
        chi_squared=misfit,
        degrees_of_freedom=freedom,
        flags=flags | (Flag.POOR_FIT if bool(is_poor_fit(misfit, freedom)) else Flag(0)),
    )
