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
from csist.tracks.link import LEAST_LENGTH, Linker
from csist.tracks.smooth import DETECTED, FALSE_DENSITY, LEAST_STD_PX, UNKNOWN_STD_PX, position_std

ACCELERATION = 0.1
"""Standard deviation of the change of the velocity in px per frame, from frame to frame."""
START_SPEED_PX = 0.7
"""Standard deviation of the velocity of a new track of `LEAST_LENGTH` detections in px per frame."""
YOUNG_GATE_PX = 4.0
"""Usual gate of tracks of fewer detections: most of them are false."""
GATE = 0.9999
"""Probability that a target's detection lies in the gate."""
ASSIGNED = 0.5
"""Probability from which a detection gets the number of a track, and below which it starts one."""
START = datetime(2000, 1, 1)
"""Of the sequence; only differences count."""


@dataclass
class Followed:
    """A track that is followed: its number, Stone Soup's track, and the frame of its last detection."""

    number: int
    track: Any
    last: int


@dataclass
class ProbabilisticLinker:
    """As `csist.tracks.link.Linker`, by joint probabilities.

    Args:
        patience: number of frames that a track may miss before it ends.
        started: number of the first track.
        false_density: false detections a frame and px^2.
        gate_px: largest distance in px of a detection from the predicted place of a track of fewer detections than
            `LEAST_LENGTH`.

    Raises:
        InputError: if Stone Soup is not installed, or the gate is not positive.
    """

    patience: int = 5
    started: int = 0
    false_density: float = FALSE_DENSITY
    gate_px: float = YOUNG_GATE_PX
    _followed: list[Followed] = field(default_factory=list)
    _joint: Any = None
    _young: Any = None
    _updater: Any = None

    def __post_init__(self) -> None:
        try:
            from stonesoup.dataassociator.probability import JPDAwithEHM2
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
        self._joint = JPDAwithEHM2(hypothesiser)
        self._young = Linker(started=self.started, gate_px=self.gate_px)

    def update(self, frame: int, targets: Targets) -> IntArray:
        """Return the track numbers (n,) of the targets of a frame; frames must be passed in increasing order."""
        time = START + timedelta(seconds=int(frame))
        self._followed = [one for one in self._followed if frame - one.last <= self.patience + 1]
        numbers, share = self._associate(_detections(targets, time), (frame, time))
        # Most tracks of few detections are false: they are linked as they come, and must not share the others' ones.
        free = np.flatnonzero((numbers < 0) & (share < ASSIGNED))
        numbers[free] = self._young.update(frame, targets[free])
        self.started = self._young.started
        for number, place, velocity in self._young.taken_over(LEAST_LENGTH):
            self._followed.append(Followed(number, _new_track(place, velocity, time), frame))
        return numbers

    def _associate(self, detections: list[Any], moment: tuple[int, datetime]) -> tuple[IntArray, FloatArray]:
        """Update the tracks; number of the track, -1 for none, and probability of any track, of each detection (n,)."""
        from stonesoup.types.detection import MissedDetection

        numbers = np.full(len(detections), -1, dtype=np.int64)
        if not self._followed:
            return numbers, np.zeros(len(detections))
        frame, time = moment
        # In lists: the order of a set follows addresses in memory, and with it the last digits of the probabilities.
        found = self._joint.associate([one.track for one in self._followed], detections, time)
        place = {id(detection): k for k, detection in enumerate(detections)}
        share = np.zeros((len(self._followed), len(detections)))
        for i, one in enumerate(self._followed):
            for hypothesis in found[one.track]:
                if not isinstance(hypothesis.measurement, MissedDetection):
                    share[i, place[id(hypothesis.measurement)]] = float(hypothesis.probability)
            one.track.append(_mixed(found[one.track], self._updater))
            k = int(share[i].argmax()) if len(detections) else -1
            if k >= 0 and share[i, k] >= ASSIGNED and numbers[k] < 0:
                numbers[k], one.last = one.number, frame
        return numbers, share.sum(axis=0)


def _detections(targets: Targets, time: datetime) -> list[Any]:
    """Targets as Stone Soup's detections, each with its own errors."""
    from stonesoup.models.measurement.linear import LinearGaussian
    from stonesoup.types.detection import Detection

    std = np.stack(position_std(targets), axis=1)
    std = np.maximum(np.where(np.isfinite(std), std, UNKNOWN_STD_PX), LEAST_STD_PX)
    return [
        Detection(np.array([[x], [y]]), timestamp=time, measurement_model=LinearGaussian(4, (0, 2), np.diag(own**2)))
        for x, y, own in zip(targets.x, targets.y, std, strict=True)
    ]


def _new_track(place: FloatArray, velocity: FloatArray, time: datetime) -> Any:
    """A track at a place (2,) with a velocity (2,)."""
    from stonesoup.types.state import GaussianState
    from stonesoup.types.track import Track

    spread = np.diag([UNKNOWN_STD_PX**2, START_SPEED_PX**2] * 2)
    state = np.array([[place[0]], [velocity[0]], [place[1]], [velocity[1]]])
    return Track([GaussianState(state, spread, timestamp=time)])


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
