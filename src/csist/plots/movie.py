"""Frames of an annotated video: the stretched image with its targets and the tracks so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from csist._types import FloatArray
from csist.plots.images import frame_levels
from csist.plots.style import BLUE, DETECTION, GREEN, PURPLE, SKY, VERMILION, YELLOW
from csist.targets import Targets
from csist.words import counted

LEAST_SIDE = 640
"""Longer side in pixels that the video has at least; a smaller frame is enlarged by a whole factor."""
RADIUS = 9
"""Radius of a target's circle in pixels of the video."""
TRAIL_FRAMES = 30
"""Number of frames that the trail of a track reaches back."""
LEAST_POINTS = 3
"""Number of detections from which on a trail is drawn; below, it may be a chance pair."""
MEMORY = 0.9
"""Weight of the previous grey scale in the next one: the picture follows a drifting level without flicker."""
TRAIL_COLOURS = (SKY, YELLOW, GREEN, VERMILION, PURPLE, BLUE)
FONT_PX = 14


@dataclass
class Annotator:
    """Draws the frames of a sequence, in order.

    Args:
        shape: rows and columns of a frame in px.
    """

    shape: tuple[int, int]
    _levels: tuple[float, float] | None = None
    _trails: dict[int, deque[tuple[int, float, float]]] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Pixels of the video along a side of a pixel."""
        return max(1, -(-LEAST_SIDE // max(self.shape)))

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the video; even, as its encoding needs."""
        rows, columns = (self.scale * side for side in self.shape)
        return rows + rows % 2, columns + columns % 2

    def draw(self, number: int, frame: FloatArray | None, targets: Targets, tracks: Sequence[int]) -> NDArray[np.uint8]:
        """The picture (rows, columns, 3) of a frame.

        Args:
            number: of the frame.
            frame: (H, W) in counts; None for one without a value, which is black.
            targets: of the frame.
            tracks: number of the track of each target; -1 for none.
        """
        picture = Image.fromarray(self._stretched(frame)).convert("RGB")
        pen = ImageDraw.Draw(picture)
        font = ImageFont.load_default(FONT_PX)
        for track, x, y in zip(tracks, targets.x, targets.y, strict=True):
            if track >= 0:
                self._trails.setdefault(track, deque()).append((number, *self._at(float(x), float(y))))
        for track, points in list(self._trails.items()):
            while points and points[0][0] <= number - TRAIL_FRAMES:
                points.popleft()
            if not points:
                del self._trails[track]
            elif len(points) >= LEAST_POINTS:
                colour = TRAIL_COLOURS[track % len(TRAIL_COLOURS)]
                pen.line([point[1:] for point in points], fill=colour, width=2)
                x, y = points[-1][1:]
                pen.text((x + RADIUS, y + RADIUS), f"{track}", fill=colour, font=font)
        for x, y in zip(targets.x, targets.y, strict=True):
            column, row = self._at(float(x), float(y))
            pen.ellipse((column - RADIUS, row - RADIUS, column + RADIUS, row + RADIUS), outline=DETECTION, width=2)
        label = f"frame {number}: {counted(len(targets), 'target')}"
        pen.text((6, 4), label, fill="white", font=font, stroke_width=2, stroke_fill="black")
        return np.asarray(picture)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Place in the video of a position in px."""
        return (x + 0.5) * self.scale, (y + 0.5) * self.scale

    def _stretched(self, frame: FloatArray | None) -> NDArray[np.uint8]:
        """The frame in 8 bit at the size of the video; pixels without a value are black."""
        grey = np.zeros(self.sides, dtype=np.uint8)
        if frame is None:
            return grey
        levels = frame_levels(frame)
        own = float(levels.vmin or 0.0), float(levels.vmax or 1.0)
        old = self._levels or own
        low, high = (MEMORY * a + (1.0 - MEMORY) * b for a, b in zip(old, own, strict=True))
        self._levels = low, high
        values = np.nan_to_num(np.clip((frame - low) / (high - low), 0.0, 1.0))
        large = np.rint(255.0 * values).astype(np.uint8).repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        grey[: large.shape[0], : large.shape[1]] = large
        return grey
