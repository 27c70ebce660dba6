"""Tables of tracks of `csist unmix --tracks`: linked from targets of single frames, or those of joint posteriors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from csist.checks import InputError

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.sequences.result import Track
    from csist.targets import Targets

    Further = Callable[[Targets], dict[str, FloatArray] | None]

TRACKERS = ("nearest", "groups", "jpda")
"""Best single assignment of targets, the same of whole groups, and joint probabilities (extra `tracking`)."""
PLACE = ("x", "y", "vx", "vy")
MANY_LEFT = 6
"""Detections without a track, and more than half of all, from which the user is told."""


def covariance_columns(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Columns of the upper triangle of a covariance, each with its row and column in the matrix.

    >>> covariance_columns(["x", "y"])
    {'cov_x_x': (0, 0), 'cov_x_y': (0, 1), 'cov_y_y': (1, 1)}
    """
    return {f"cov_{one}_{names[j]}": (i, j) for i, one in enumerate(names) for j in range(i, len(names))}


def check_tracker(name: str) -> str:
    """The name of a tracker.

    Raises:
        InputError: if it is unknown.
    """
    if name not in TRACKERS:
        raise InputError(f"tracker must be one of {', '.join(TRACKERS)}, got {name!r}")
    return name


def new_linker(name: str, started: int = 0, gate_px: float | None = None) -> Any:
    """A tracker for one sequence, whose first track has a given number.

    Args:
        name: one of `TRACKERS`.
        started: number of the first track.
        gate_px: see `TrackRows`.

    Raises:
        InputError: if it needs a package that is not installed, or the gate is not positive.
    """
    if name == "jpda":
        from csist.tracks.jpda import YOUNG_GATE_PX, ProbabilisticLinker

        return ProbabilisticLinker(started=started, gate_px=YOUNG_GATE_PX if gate_px is None else gate_px)
    from csist.tracks.link import GATE_PX, Linker

    return Linker(started=started, gate_px=GATE_PX if gate_px is None else gate_px)


class TrackRows:
    """Detections of sequences, linked into tracks as they are added.

    Args:
        tracker: one of `TRACKERS`.
        gate_px: largest distance in px of a detection from where its track is expected, and so the largest speed of a
            new track in px per frame; None for the tracker's own.

    Raises:
        InputError: if it is unknown, or needs a package that is not installed, or the gate is not positive.
    """

    def __init__(self, tracker: str = "nearest", gate_px: float | None = None) -> None:
        self._tracker = check_tracker(tracker)
        # What is missing shows before anything is unmixed.
        self._gate_px: float = new_linker(tracker, 0, gate_px).gate_px
        self._rows: list[tuple[Any, ...]] = []
        self._linkers: dict[str, Any] = {}
        self._frames: dict[str, int] = {}
        self._started = 0

    def add(self, sequence: str, frame: int, targets: Targets) -> None:
        """Link the targets of the next frame of a sequence."""
        from csist.tracks.middles import group_middles
        from csist.tracks.smooth import position_std

        if sequence not in self._linkers:  # sequences come one after the other
            self._linkers = {sequence: new_linker(self._tracker, self._started, self._gate_px)}
        linker = self._linkers[sequence]
        if self._tracker == "groups":
            targets = group_middles(targets)
        numbers = linker.update(frame, targets).tolist()
        self._started = linker.started
        self._frames[sequence] = self._frames.get(sequence, 0) + 1
        columns = (targets.x, targets.y, *position_std(targets), targets.score, targets.intensity)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self._rows += [(sequence, number, frame, *row) for number, row in zip(numbers, rows, strict=True)]

    def notes(self, table: Any) -> list[str]:
        """What the user should know of a table of tracks, one line each."""
        if self._frames and max(self._frames.values()) == 1:
            return ["each file is a sequence of one frame: give --sequence to take the frames of a folder as one"]
        left = len(self._rows) - int(table["detected"].sum())
        if left <= len(self._rows) // 2 or left < MANY_LEFT:
            return []
        return [
            f"{left} of {len(self._rows)} detections are in no track: targets faster than {self._gate_px:g} px per "
            "frame need a larger --gate"
        ]

    def table(self) -> Any:
        """The tracks with enough detections, numbered by first appearance.

        One row per frame from the first to the last detection of a track: the smoothed state, velocities in px per
        frame, whether there was a detection and its intensity, the probability that the track is a target, and the
        upper triangle of the state's covariance.
        """
        import numpy as np
        import pandas as pd

        from csist.tracks.link import is_confirmed
        from csist.tracks.smooth import smooth

        names = ["image", "track", "frame", "x", "y", "x_std", "y_std", "score", "intensity"]
        table = pd.DataFrame(self._rows, columns=names)
        table = table.sort_values(["track", "frame"], kind="stable")
        table = table.groupby("track").filter(lambda own: is_confirmed(own["frame"]))
        cells = covariance_columns(PLACE)
        columns = ["image", "track", "frame", "x", "y", "intensity", "vx", "vy", "detected", "existence_probability"]
        columns += cells
        starts = np.flatnonzero(np.diff(table["track"].to_numpy(), prepend=-1)).tolist()
        parts = []
        for number, (first, end) in enumerate(pairwise([*starts, len(table)])):
            own = table.iloc[first:end]
            frame, place, std = own["frame"].to_numpy(), own[["x", "y"]].to_numpy(), own[["x_std", "y_std"]].to_numpy()
            track = smooth(frame, place, std, own["score"].to_numpy())
            intensity = np.full(len(track.frame), np.nan)
            intensity[track.detected] = own["intensity"]
            values = [
                own["image"].iloc[0], number, track.frame, track.state[:, 0], track.state[:, 1], intensity,
                track.state[:, 2], track.state[:, 3], track.detected.astype(int), track.existence_probability,
                *(track.covariance[:, i, j] for i, j in cells.values()),
            ]  # fmt: skip
            parts.append(pd.DataFrame(dict(zip(columns, values, strict=True))))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


class JointRows:
    """Tracks of joint posteriors, one row each."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def notes(self, _: Any) -> list[str]:
        """Nothing: joint posteriors say themselves what they leave out."""
        return []

    def add(self, sequence: str, start: int, tracks: list[Track]) -> None:
        """Add the tracks of a run of frames that starts at frame `start` of a sequence."""
        from csist.sequences.result import STATE, Outline

        for track in tracks:
            row = {"image": sequence, "track": track.id, "first": start + track.first, "last": start + track.last}
            row |= dict(zip(STATE, track.state.tolist(), strict=True))
            row["existence_probability"] = track.existence_probability
            row |= {name: float(track.covariance[cell]) for name, cell in covariance_columns(STATE).items()}
            outline = track.outline or Outline(float("nan"), float("nan"), float("nan"))
            row |= outline._asdict()
            self._rows.append(row)

    def table(self) -> Any:
        """The tracks.

        States in their first frame, velocities in px per frame, the covariance's upper triangle, and the size and
        direction of extended sources and streaks.
        """
        import pandas as pd

        from csist.sequences.result import STATE, Outline

        names = ["image", "track", "first", "last", *STATE, "existence_probability", *covariance_columns(STATE)]
        return pd.DataFrame(self._rows, columns=[*names, *Outline._fields])


def with_columns(table: Any, names: Sequence[str], frames: Mapping[tuple[str, int], Further]) -> Any:
    """A table of tracks with further columns, those of the frame of each row, of a joint track those of its first.

    Args:
        table: of tracks.
        names: of the columns, in order.
        frames: what gives the columns of the targets of a frame, by file and number.
    """
    import numpy as np

    frame = "frame" if "frame" in table.columns else "first"
    values = {name: np.full(len(table), np.nan) for name in names}
    places = table.reset_index(drop=True).groupby(["image", frame], sort=False).indices if names else {}
    for (image, number), rows in places.items():
        known = frames[image, int(number)](_targets_of(table.iloc[rows])) or {}
        for name in names:
            values[name][rows] = known[name]
    return table.assign(**values)


def _targets_of(rows: Any) -> Targets:
    """The states of tracks as targets."""
    import numpy as np

    from csist.targets import Targets

    std = {name: np.sqrt(rows[f"cov_{name}_{name}"].to_numpy()) for name in ("x", "y")}
    flux = rows["cov_intensity_intensity"] if "cov_intensity_intensity" in rows.columns else np.full(len(rows), np.nan)
    return Targets(rows["x"], rows["y"], rows["intensity"], x_std=std["x"], y_std=std["y"], intensity_std=np.sqrt(flux))
