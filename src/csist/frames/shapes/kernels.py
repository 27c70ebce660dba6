"""The light of a mixture of Gaussians that share their covariance, with its derivatives, compiled with Numba."""

from __future__ import annotations

import math

from csist._compiled import compiled
from csist._types import FloatArray

FARTHEST = 18.0
"""Exponent beyond which a Gaussian is taken as 0: exp(-18) = 1.5e-8."""


@compiled
def mixture(
    centres: FloatArray,
    arms: FloatArray,
    weights: FloatArray,
    precision: FloatArray,
    nodes: FloatArray,
    out: FloatArray,
) -> None:
    """Light of a mixture integrated over pixels, and its derivatives.

    Args:
        centres: (K, 2) x and y of the components in px.
        arms: (K, 2) direction in which each centre moves as the source grows, in units of its size.
        weights: (K,) of the components.
        precision: (3,) inverse of their covariance, xx, xy and yy, in 1/px^2.
        nodes: (q, 2) nodes of the quadrature along a pixel's side, -0.5 to 0.5 px, and their weights.
        out: filled, (10, h, w): light; its derivatives by x and y of all centres; second derivatives xx, xy and yy;
            derivatives by x and y times the first, then the second coordinate of `arms`.
    """
    _, h, w = out.shape
    a, b, c = precision[0], precision[1], precision[2]
    scale = math.sqrt(max(a * c - b * b, 0.0)) / (2.0 * math.pi)
    out[:] = 0.0
    for k in range(centres.shape[0]):
        for row in range(nodes.shape[0]):
            for column in range(nodes.shape[0]):
                share = weights[k] * scale * nodes[row, 1] * nodes[column, 1]
                for i in range(h):
                    dy = i + nodes[row, 0] - centres[k, 1]
                    if 0.5 * (c - b * b / a) * dy * dy > FARTHEST:
                        continue
                    for j in range(w):
                        dx = j + nodes[column, 0] - centres[k, 0]
                        gx, gy = a * dx + b * dy, b * dx + c * dy
                        exponent = 0.5 * (gx * dx + gy * dy)
                        if exponent < FARTHEST:
                            density = share * math.exp(-exponent)
                            out[0, i, j] += density
                            out[1, i, j] += density * gx
                            out[2, i, j] += density * gy
                            out[3, i, j] += density * (gx * gx - a)
                            out[4, i, j] += density * (gx * gy - b)
                            out[5, i, j] += density * (gy * gy - c)
                            out[6, i, j] += density * gx * arms[k, 0]
                            out[7, i, j] += density * gy * arms[k, 0]
                            out[8, i, j] += density * gx * arms[k, 1]
                            out[9, i, j] += density * gy * arms[k, 1]
