"""The course of a training by the part of it that is done: learning rate, windows, stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FINAL_SHARE = 0.01
"""Learning rate at the end, as a share of the peak."""

GROWING_PART = 0.5
"""First part of a training that grows, shared by all numbers of stages but the last."""


def learning_rate_share(progress: float, warmup: float, decay: float, schedule: str) -> float:
    """Learning rate as a share of its peak after the part `progress` (0 to 1) of the training.

    Both start with a linear rise over `warmup`. "stable" then stays at the peak and falls linearly over the
    last part `decay`: a run can be ended early by giving it a smaller total, and goes on from where it is if
    the total grows before the fall began. "one-cycle" falls with a half cosine from the warmup on.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    if schedule == "one-cycle":
        done = min((progress - warmup) / (1.0 - warmup), 1.0)
        return FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + float(np.cos(np.pi * done)))
    left = max(1.0 - progress, 0.0)
    return max(min(left / decay, 1.0), FINAL_SHARE)


def stages_at(progress: float, grow: Sequence[int]) -> int:
    """Stages that are trained after the part `progress` of the training.

    >>> [stages_at(progress, (2, 4, 6)) for progress in (0.0, 0.2, 0.3, 0.5, 1.0)]
    [2, 2, 4, 6, 6]
    """
    return grow[min(int(progress / GROWING_PART * (len(grow) - 1)), len(grow) - 1)]
