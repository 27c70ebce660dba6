"""Middles of the groups of a frame: a group is one object for a tracker, whatever the number of its targets."""

from __future__ import annotations

import numpy as np

from csist.targets import Targets


def group_middles(targets: Targets) -> Targets:
    """One target for each group of a frame: the middle of its light, all of its flux, its highest score.

    Targets without a group are left out. The errors of the positions are those of the middle for fluxes that are known.

    >>> pair = Targets(x=[1.0, 4.0], y=[2.0, 2.0], intensity=[200.0, 100.0], score=[0.5, 0.9], group=[3, 3])
    >>> middle = group_middles(pair)
    >>> middle.x.tolist(), middle.intensity.tolist(), middle.score.tolist(), middle.group.tolist()
    ([2.0], [300.0], [0.9], [3])
    """
    numbers = np.unique(targets.group[targets.group >= 0])
    rows = np.full((len(numbers), 6), np.nan)
    for row, number in zip(rows, numbers, strict=True):
        own = targets[targets.group == number]
        light = np.nan_to_num(own.intensity)
        share = np.maximum(light, 1e-12) / np.maximum(light, 1e-12).sum()
        known = own.score[np.isfinite(own.score)]
        row[:3] = share @ own.x, share @ own.y, light.sum()
        row[3] = known.max() if len(known) else np.nan
        row[4:] = np.sqrt(share**2 @ own.x_std**2), np.sqrt(share**2 @ own.y_std**2)
    x, y, intensity, score, x_std, y_std = rows.T
    return Targets(x, y, intensity, score, x_std=x_std, y_std=y_std, group=numbers)
