"""Probabilistic association of detections with tracks: JPDA of Stone Soup, behind the extra `tracking`.

Every track keeps its state as the mean over all ways to assign the detections near it, weighted by their joint
probabilities (Fortmann, Bar-Shalom & Scheffe, Sonar tracking of multiple targets using joint probabilistic data
association, IEEE JOE 1983). A crossing, a miss or a false detection beside a target shifts such a track little, where
the best single assignment can take it over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from csist._types import FloatArray, IntArray
from csist.checks import InputError
from csist.targets import Targets
from csist.tracks.link import LEAST_LENGTH
from csist.tracks.smooth import FALSE_DENSITY, LEAST_STD_PX, UNKNOWN_STD_PX

ACCELERATION = 0.1
"""Standard deviation of the change of the velocity in px a frame, from frame to frame."""
START_SPEED_PX = 2.0
"""Standard deviation of the velocity of a new track in px a frame."""
DETECTED, GATE = 0.9, 0.9999
"""Probabilities that a target is detected in a frame, and that its detection lies in the gate."""
ASSIGNED = 0.5
"""Probability from which a detection gets the number of a track, and below which it starts one."""
START = datetime(2000, 1, 1)
"""Of the sequence; only differences count."""


@dataclass
class Followed:
    """A track that is followed: Stone Soup's track, its number, and the frames of its last detection and its length."""

    number: int
    track: Any
    last: int
    length: int = 1


@dataclass
class ProbabilisticLinker:
    """As `csist.tracks.link.Linker`, by joint probabilities.

    Args:
        patience: number of frames that a track may miss before it ends.
        started: number of the first track.
        false_density: false detections a frame and px^2.

    Raises:
        InputError: if Stone Soup is not installed.
    """

    patience: int = 5
    started: int = 0
    false_density: float = FALSE_DENSITY
    _followed: list[Followed] = field(default_factory=list)
    _joint: Any = None
    _single: Any = None
    _updater: Any = None

    def __post_init__(self) -> None:
        try:
            from stonesoup.dataassociator.probability import PDA, JPDAwithEHM2
            from stonesoup.hypothesiser.probability import PDAHypothesiser
            from stonesoup.models.measurement.linear import LinearGaussian
            from stonesoup.models.transition.linear import CombinedLinearGaussianTransitionModel, ConstantVelocity
            from stonesoup.predictor.kalman import KalmanPredictor
            from stonesoup.updater.kalman import KalmanUpdater
        except ImportError as error:
            raise InputError(
                "the tracker 'jpda' needs the extra `tracking`: pip install 'csist[tracking]', or use 'nearest'"
            ) from error
        motion = CombinedLinearGaussianTransitionModel([ConstantVelocity(ACCELERATION**2)] * 2)
        predictor, self._updater = KalmanPredictor(motion), KalmanUpdater(LinearGaussian(4, (0, 2), np.eye(2)))
        hypothesiser = PDAHypothesiser(
            predictor, self._updater, self.false_density, prob_detect=DETECTED, prob_gate=GATE
        )
        self._joint, self._single = JPDAwithEHM2(hypothesiser), PDA(hypothesiser)

    def update(self, frame: int, targets: Targets) -> IntArray:
        """Return the track numbers (n,) of the targets of a frame; frames must be passed in increasing order."""
        time = START + timedelta(seconds=int(frame))
        self._followed = [one for one in self._followed if frame - one.last <= self.patience + 1]
        detections = _detections(targets, time)
        numbers = np.full(len(targets), -1, dtype=np.int64)
        free = np.ones(len(targets), np.bool_)
        # Tracks that few detections support must not share those of the others; most of them are false.
        for confirmed in (True, False):
            group = [one for one in self._followed if (one.length >= LEAST_LENGTH) == confirmed]
            tool = self._joint if confirmed else self._single
            taken = self._associate(tool, group, [detections[k] for k in np.flatnonzero(free)], (frame, time))
            places = np.flatnonzero(free)
            for place, (number, share) in zip(places, taken, strict=True):
                numbers[place], free[place] = number, share < ASSIGNED
        for place in np.flatnonzero(free & (numbers < 0)):
            numbers[place] = self.started
            self._followed.append(Followed(self.started, _new_track(detections[place], time), frame))
            self.started += 1
        return numbers

    def _associate(
        self, tool: Any, group: list[Followed], detections: list[Any], moment: tuple[int, datetime]
    ) -> list[tuple[int, float]]:
        """Update some tracks; the number of the track and the probability of any track, for each detection."""
        from stonesoup.types.detection import MissedDetection

        taken = [(-1, 0.0)] * len(detections)
        if not group:
            return taken
        frame, time = moment
        found = tool.associate({one.track for one in group}, set(detections), time)
        place = {id(detection): k for k, detection in enumerate(detections)}
        share = np.zeros((len(group), len(detections)))
        for i, one in enumerate(group):
            hypotheses = found[one.track]
            for hypothesis in hypotheses:
                if not isinstance(hypothesis.measurement, MissedDetection):
                    share[i, place[id(hypothesis.measurement)]] = float(hypothesis.probability)
            one.track.append(_mixed(hypotheses, self._updater))
        total = share.sum(axis=0)
        for i, one in enumerate(group):
            if not len(detections):
                break
            k = int(share[i].argmax())
            if share[i, k] >= ASSIGNED and taken[k][0] < 0:
                taken[k] = (one.number, 1.0)
                one.last, one.length = frame, one.length + 1
        return [(number, max(whole, float(total[k]))) for k, (number, whole) in enumerate(taken)]


def _detections(targets: Targets, time: datetime) -> list[Any]:
    """Targets as Stone Soup's detections, each with its own errors."""
    from stonesoup.models.measurement.linear import LinearGaussian
    from stonesoup.types.detection import Detection

    std = np.stack([targets.x_std, targets.y_std], axis=1)
    std = np.maximum(np.where(np.isfinite(std), std, UNKNOWN_STD_PX), LEAST_STD_PX)
    return [
        Detection(np.array([[x], [y]]), timestamp=time, measurement_model=LinearGaussian(4, (0, 2), np.diag(own**2)))
        for x, y, own in zip(targets.x, targets.y, std, strict=True)
    ]


def _new_track(detection: Any, time: datetime) -> Any:
    """A track of one detection."""
    from stonesoup.types.state import GaussianState
    from stonesoup.types.track import Track

    noise = np.diag(detection.measurement_model.covar())
    x, y = (float(value) for value in detection.state_vector)
    spread = np.diag([noise[0], START_SPEED_PX**2, noise[1], START_SPEED_PX**2])
    return Track([GaussianState(np.array([[x], [0.0], [y], [0.0]]), spread, timestamp=time)])


def _mixed(hypotheses: Any, updater: Any) -> Any:
    """The state as the mean over hypotheses, with the spread between them."""
    from stonesoup.types.update import GaussianStateUpdate

    weights, means, spreads = [], [], []
    for hypothesis in hypotheses:
        state = updater.update(hypothesis) if hypothesis else hypothesis.prediction
        weights.append(float(hypothesis.probability))
        means.append(np.asarray(state.state_vector, dtype=np.float64).ravel())
        spreads.append(np.asarray(state.covar, dtype=np.float64))
    share: FloatArray = np.array(weights) / sum(weights)
    mean = share @ np.array(means)
    apart = np.array(means) - mean
    covariance = np.einsum("h,hij->ij", share, np.array(spreads)) + np.einsum("h,hi,hj->ij", share, apart, apart)
    return GaussianStateUpdate(mean[:, None], covariance, hypotheses, timestamp=hypotheses[0].prediction.timestamp)
