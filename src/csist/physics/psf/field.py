"""A point spread function that varies over the field: a grid of sampled PSFs, interpolated between its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from csist._types import FloatArray
from csist.checks import InputError
from csist.physics.psf.sampled import SampledPSF

CELL_PX = 8.0
"""Side of the cells within which one PSF is used; over so few pixels optics hardly change."""


@dataclass(frozen=True, eq=False)
class FieldPSF:
    """PSF on a rectangular grid of positions: interpolated bilinearly between them, and the nearest one beyond them.

    `at` gives the PSF of a place. Where a single PSF is needed for a whole frame, as for the detection, the field's
    mean is used: its `response`, `gradient` and `reach_px`.

    Args:
        x: (nx,) rising columns of the nodes in px.
        y: (ny,) rising rows of the nodes in px.
        arrays: (ny, nx, h, w) sampled PSFs as in `SampledPSF`.
        oversampling: samples per pixel.

    Raises:
        InputError: if the nodes do not rise or the arrays do not suit them or are no sampled PSFs.
    """

    x: FloatArray
    y: FloatArray
    arrays: FloatArray = field(repr=False)
    oversampling: int
    kind: ClassVar[str] = "field"

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            nodes = np.array(getattr(self, name), dtype=np.float64)
            if nodes.ndim != 1 or not nodes.size or not np.isfinite(nodes).all() or (np.diff(nodes) <= 0).any():
                raise InputError(f"the nodes {name} of a field PSF must increase and be finite, got {nodes}")
            object.__setattr__(self, name, nodes)
        arrays = np.array(self.arrays, dtype=np.float64)
        if arrays.ndim != 4 or arrays.shape[:2] != (len(self.y), len(self.x)):
            raise InputError(
                f"a field PSF with {len(self.y)} x {len(self.x)} nodes needs arrays (ny, nx, h, w), got {arrays.shape}"
            )
        scaled = [[SampledPSF(array, self.oversampling).array for array in row] for row in arrays]
        object.__setattr__(self, "arrays", np.array(scaled))
        object.__setattr__(self, "oversampling", int(self.oversampling))

    @cached_property
    def mean(self) -> SampledPSF:
        """Mean of all nodes."""
        return SampledPSF(self.arrays.mean(axis=(0, 1)), self.oversampling)

    @property
    def reach_px(self) -> float:
        """Distance in px beyond which the mean PSF is negligible, or at which the arrays end."""
        return self.mean.reach_px

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from a target, by the mean PSF."""
        return self.mean.response(dx, dy)

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px."""
        return self.mean.gradient(dx, dy)

    def at(self, x: float, y: float) -> SampledPSF:
        """PSF at a place (x, y) in px, the same within a cell of `CELL_PX`."""
        return _interpolated(self, round(x / CELL_PX), round(y / CELL_PX))

    def moved(self, dx: float, dy: float) -> FieldPSF:
        """The same PSF for a frame whose first pixel lies at (dx, dy) px of this one."""
        return FieldPSF(self.x - dx, self.y - dy, self.arrays, self.oversampling) if dx or dy else self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FieldPSF):
            return NotImplemented
        return self.to_card() == other.to_card()

    @cached_property
    def _hash(self) -> int:
        return hash((self.x.tobytes(), self.y.tobytes(), self.arrays.astype("<f4").tobytes(), self.oversampling))

    def __hash__(self) -> int:
        return self._hash

    def to_card(self) -> dict[str, Any]:
        """Return a JSON-ready description with a card of a sampled PSF for each node, row by row."""
        nodes = [SampledPSF(array, self.oversampling).to_card() for row in self.arrays for array in row]
        return {"kind": self.kind, "x": self.x.tolist(), "y": self.y.tolist(), "nodes": nodes}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> FieldPSF:
        """Build the PSF from the fields of a card, without its kind.

        Raises:
            InputError: if a node is missing or not a sampled PSF.
        """
        own = [
            SampledPSF.from_fields({name: value for name, value in node.items() if name != "kind"})
            for node in values["nodes"]
        ]
        if not own or len(own) != len(values["x"]) * len(values["y"]):
            raise InputError(f"a field PSF needs a node for each of its positions, got {len(own)}")
        arrays = np.array([node.array for node in own])
        shape = (len(values["y"]), len(values["x"]), *arrays.shape[1:])
        return cls(np.array(values["x"]), np.array(values["y"]), arrays.reshape(shape), own[0].oversampling)


@lru_cache(maxsize=1024)
def _interpolated(psf: FieldPSF, column: int, row: int) -> SampledPSF:
    """PSF at the centre of a cell."""
    total = np.zeros(psf.arrays.shape[2:])
    for place, weight in _weights(psf.y, row * CELL_PX):
        for other, share in _weights(psf.x, column * CELL_PX):
            total = total + weight * share * psf.arrays[place, other]
    return SampledPSF(total, psf.oversampling)


def _weights(nodes: FloatArray, place: float) -> list[tuple[int, float]]:
    """Indices and weights of the nodes on both sides of a place."""
    if len(nodes) == 1:
        return [(0, 1.0)]
    left = int(np.clip(np.searchsorted(nodes, place) - 1, 0, len(nodes) - 2))
    share = float(np.clip((place - nodes[left]) / (nodes[left + 1] - nodes[left]), 0.0, 1.0))
    return [(left, 1.0 - share), (left + 1, share)]
