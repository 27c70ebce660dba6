"""ISTA and FISTA: the lasso min_s 1/2 |z - G s|^2 + lambda |s|_1 on the sub-pixel grid, without training.

Daubechies, Defrise & De Mol, "An iterative thresholding algorithm for linear inverse problems with a sparsity
constraint", CPAM 57, 2004 (arXiv math/0307152): s <- soft(s - G^T (G s - z) / L, lambda / L), L the largest
eigenvalue of G^T G. Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging
Sciences 2(1), 2009: the same step from the extrapolated point y = s + (t - 1) / t' (s - s_before), eq. 4.1-4.3.

Many images are solved together in the layout (rows, columns, image): both factors of a separable G are then matrix
products over long rows, without a copy between them. The large factor, over rows, is one product.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from csist.checks import InputError, check_not_negative, check_positive
from csist.methods.base import GridMethod
from csist.methods.layers import start_matrix
from csist.methods.operator import SteeringOperator
from csist.physics.sensor import Sensor

BLOCK = 128
"""Number of images solved together: enough for efficient matrix products, few enough for the cache."""

BATCH = 2048
"""Number of images passed to the solver at a time: enough blocks for all threads."""

PIXELS_MULTIPLE = 4
"""Both factors are padded with zero rows to a multiple of this number, on which matrix kernels work at a time."""

CHECK_EVERY = 10
"""Number of iterations between convergence checks."""

STARTS = ("pinv", "least-squares", "zero")


@dataclass(frozen=True)
class Setting:
    """Free parameters of ISTA.

    Args:
        penalty: lambda, in counts.
        iterations: maximum number of iterations.
        tolerance: an image has converged when the Euclidean norm of its change, in counts, is below this value.
        nonnegative: whether negative cells are set to 0 in each step.
        start: "pinv", "least-squares" (Q of the networks) or "zero".
    """

    penalty: float
    iterations: int
    tolerance: float
    nonnegative: bool
    start: str


SETTINGS = {
    "paper": Setting(penalty=1.0, iterations=3000, tolerance=1e-4, nonnegative=False, start="pinv"),
    "tuned": Setting(penalty=0.3, iterations=3000, tolerance=1e-3, nonnegative=True, start="least-squares"),
}
"""`paper`: settings of the published comparison. `tuned`: chosen on the validation split of the benchmark."""


class Solution(NamedTuple):
    """Maps (B, 1, cH, cW) and number of iterations of each image (B,)."""

    cells: Tensor
    iterations: Tensor


class ISTA(GridMethod):
    """Iterative shrinkage-thresholding.

    Args:
        sensor: sensor of the images.
        ratio: sub-pixel grid ratio.
        setting: "tuned" or "paper"; the arguments below override single values of it.
        penalty: lambda, in counts.
        iterations: maximum number of iterations.
        tolerance: an image has converged when the Euclidean norm of its change, in counts, is below this value. It is
            checked every `CHECK_EVERY` iterations for each image separately, so that the batch does not matter.
        nonnegative: whether negative cells are set to 0 in each step.
        start: "pinv", "least-squares" or "zero".
        dtype: type of the computation; the result has the type of the image.

    Raises:
        InputError: if a value is unknown or out of range.
    """

    exportable = False
    """The number of iterations depends on the image, so that there is no fixed graph."""
    small_options: ClassVar[dict[str, Any]] = {"iterations": 20}
    """Options of a small version, for quick tests."""
    accelerated: ClassVar[bool] = False

    start_map: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        sensor: Sensor,
        ratio: int,
        *,
        setting: str = "tuned",
        penalty: float | None = None,
        iterations: int | None = None,
        tolerance: float | None = None,
        nonnegative: bool | None = None,
        start: str | None = None,
        dtype: torch.dtype | str = torch.float64,
    ) -> None:
        super().__init__(sensor, ratio)
        self.batch_size = BATCH
        if setting not in SETTINGS:
            raise InputError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
        chosen = SETTINGS[setting]
        self.penalty = check_not_negative("penalty", chosen.penalty if penalty is None else penalty)
        self.iterations = int(check_positive("iterations", chosen.iterations if iterations is None else iterations))
        self.tolerance = check_not_negative("tolerance", chosen.tolerance if tolerance is None else tolerance)
        self.nonnegative = chosen.nonnegative if nonnegative is None else nonnegative
        self.start = chosen.start if start is None else start
        if self.start not in STARTS:
            raise InputError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}")
        resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if resolved not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be float32 or float64, got {dtype}")
        self.operator = SteeringOperator(sensor, ratio, resolved)
        if self.operator.separable:
            for name, factor in (("rows", self.operator.rows), ("columns", self.operator.columns)):
                padded = functional.pad(factor, (0, 0, 0, -len(factor) % PIXELS_MULTIPLE))
                self.register_buffer(name, padded, persistent=False)
        self.register_buffer("start_map", torch.as_tensor(self._start_matrix(), dtype=resolved), persistent=False)

    def _start_matrix(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        cells, pixels = int(np.prod(self.grid.map_shape)), int(np.prod(self.grid.shape))
        if self.start == "zero":
            return np.zeros((cells, pixels))
        if self.start == "least-squares":
            return start_matrix(self.sensor, self.ratio)
        return np.linalg.pinv(self.operator.dense().double().numpy())

    def forward(self, image: Tensor) -> Tensor:
        """Compute the map (B, 1, cH, cW) in counts of images (B, 1, H, W) in counts."""
        return self.minimise(image).cells

    @torch.no_grad()
    def minimise(self, image: Tensor, start: Tensor | None = None) -> Solution:
        """Minimise the lasso objective of each image.

        Args:
            image: (B, 1, H, W) in counts.
            start: initial maps (B, 1, cH, cW), for example those of the previous frame.

        Raises:
            InputError: if a shape is wrong.
        """
        if image.ndim != 4 or image.shape[1:] != (1, *self.grid.shape):
            raise InputError(f"images must be (B, 1, H, W) of {self.grid.shape} px, got shape {tuple(image.shape)}")
        if start is not None and start.shape != (len(image), 1, *self.grid.map_shape):
            raise InputError(f"start must have shape {(len(image), 1, *self.grid.map_shape)}, got {tuple(start.shape)}")
        z = image.to(self.start_map) - self.sensor.background
        initial = z.flatten(1) @ self.start_map.T if start is None else start.to(z)
        initial = initial.view(-1, *self.grid.map_shape)
        blocks = self._solve_blocks(z[:, 0], initial)
        if not blocks:
            return Solution(initial[:, None].to(image), torch.zeros(0, dtype=torch.int64))
        cells = torch.cat([cells for cells, _ in blocks])
        return Solution(cells[:, None].to(image), torch.cat([count for _, count in blocks]))

    def _solve_blocks(self, image: Tensor, initial: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return maps and iterations of each block of images, with the blocks in parallel.

        Each block runs in one thread: the products are too small for several threads, which would mostly wait for each
        other.
        """
        inner = torch.get_num_threads()

        def solve_block(start: int) -> tuple[Tensor, Tensor]:
            with torch.no_grad():  # threads do not inherit it
                return self._solve_block(image[start : start + BLOCK], initial[start : start + BLOCK])

        try:
            with ThreadPoolExecutor(inner, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(solve_block, range(0, len(image), BLOCK)))
        finally:
            torch.set_num_threads(inner)

    def _solve_block(self, image: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps (n, cH, cW) and iterations (n,) of images (n, H, W)."""
        result = torch.empty_like(initial)
        taken = torch.full((len(image),), self.iterations, device=image.device)
        left = torch.arange(len(image), device=image.device)
        z, current = self._lay_out(self._padded(image)), self._lay_out(initial)
        ahead, momentum = current.clone(), 1.0
        stepped, spare = torch.empty_like(current), torch.empty_like(current)
        threshold = self.penalty / self.operator.lipschitz
        for iteration in range(1, self.iterations + 1):
            self._step(ahead, z, stepped)
            following = self._shrink(stepped, threshold, spare)
            look = iteration % CHECK_EVERY == 0 or iteration == self.iterations
            done = self._change(following, current) < self.tolerance if look else None
            if self.accelerated:
                grown = 0.5 * (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5)
                torch.lerp(current, following, 1.0 + (momentum - 1.0) / grown, out=ahead)
                momentum = grown
            else:
                ahead = following
            # Reuse the memory of the old map for the next one.
            current, spare = following, current
            if done is not None and bool(done.any()):
                result[left[done]] = self._take_out(current, done)
                taken[left[done]] = iteration
                kept = ~done
                left = left[kept]
                if not len(left):
                    return result, taken
                z, current = self._keep(z, kept), self._keep(current, kept)
                ahead = self._keep(ahead, kept) if self.accelerated else current
                stepped, spare = torch.empty_like(current), torch.empty_like(current)
        result[left] = self._take_out(current, torch.ones_like(left, dtype=torch.bool))
        return result, taken

    def _padded(self, values: Tensor) -> Tensor:
        """Pad with zeros below and to the right to `PIXELS_MULTIPLE`; unchanged if G is not separable."""
        if not self.operator.separable:
            return values
        rows, columns = (-n % PIXELS_MULTIPLE for n in self.grid.shape)
        return functional.pad(values, (0, columns, 0, rows))

    def _lay_out(self, stack: Tensor) -> Tensor:
        """Return a copy of (n, rows, columns) as (rows, columns, n), or as (n, all) if G is not separable."""
        if self.operator.separable:
            return stack.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
        return stack.flatten(1).clone()

    def _keep(self, values: Tensor, kept: Tensor) -> Tensor:
        return values[..., kept].contiguous() if self.operator.separable else values[kept]

    def _take_out(self, values: Tensor, chosen: Tensor) -> Tensor:
        """Return the maps (k, cH, cW) of the chosen images."""
        if self.operator.separable:
            return values[..., chosen].permute(2, 0, 1)
        return values[chosen].view(-1, *self.grid.map_shape)

    def _step(self, cells: Tensor, z: Tensor, out: Tensor) -> None:
        """Write s - G^T (G s - z) / L to `out`."""
        operator, scale = self.operator, -1.0 / self.operator.lipschitz
        if not operator.separable:
            residual = torch.addmm(z, cells, operator.matrix.T, beta=-1.0)
            torch.addmm(cells, residual, operator.matrix, alpha=scale, out=out)
            return
        (map_rows, map_columns, count), pixel_rows = cells.shape, len(self.rows)
        flat = (map_rows, map_columns * count)
        down = torch.mm(self.rows, cells.view(flat)).view(pixel_rows, map_columns, count)
        residual = torch.baddbmm(z, self.columns.expand(pixel_rows, -1, -1), down, beta=-1.0)
        back = torch.bmm(self.columns.T.expand(pixel_rows, -1, -1), residual)
        torch.addmm(cells.view(flat), self.rows.T, back.view(pixel_rows, -1), alpha=scale, out=out.view(flat))

    def _shrink(self, values: Tensor, threshold: float, out: Tensor) -> Tensor:
        if self.nonnegative:
            return torch.sub(values, threshold, out=out).clamp_(min=0.0)
        return functional.softshrink(values, threshold)

    def _change(self, new: Tensor, old: Tensor) -> Tensor:
        """Return the Euclidean norm of the change of each image."""
        if self.operator.separable:
            return (new - old).square_().sum(dim=(0, 1)).sqrt_()
        return (new - old).square_().sum(dim=1).sqrt_()


class FISTA(ISTA):
    """ISTA with Nesterov momentum: the same minimum in far fewer iterations.

    Takes the arguments of `ISTA`.
    """

    accelerated = True
