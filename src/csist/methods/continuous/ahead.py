"""Compile a sampler: the program of the process that `beside` starts, which reads its task from standard input.

Its tasks are "pixel anneal", "pixel temper" and "free temper". The first process finds the sampler's machine code on
disk when it comes to sampling. The types that a kernel is compiled for follow from a call, so each task samples one
small group.
"""

from __future__ import annotations

import sys

import numpy as np

from csist.methods.continuous.model import stack_of
from csist.methods.continuous.solvers import EFFORTS, FreeSolver, PixelSolver
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets

SENSOR = Sensor(shape=(5, 5), read_noise=1.0)
FLUX = 230.0
WINDOW = SENSOR.render(Targets(x=[2.0], y=[2.0], intensity=[FLUX]))[None]
CENTRE = np.array([[2, 2]])
ONE = np.ones(1, np.int64)


def sample_in_pixel(sampler: str) -> None:
    """Sample one target inside a pixel, by the annealing or by tempered chains."""
    solver = PixelSolver(SENSOR, ScenePrior.csist_100k(), EFFORTS["accurate" if sampler == "anneal" else "fast"], 1.0)
    stack = stack_of(WINDOW, SENSOR, solver.basis)
    if sampler == "anneal":
        solver.anneal(stack, np.zeros(1, np.int64), ONE, CENTRE)
    else:
        starts = np.zeros((1, solver.effort.starts, 3 * solver.most))
        starts[0, 0, :3] = 2.0, 2.0, FLUX
        solver.temper(stack, ONE, CENTRE, starts, ONE)


def sample_anywhere() -> None:
    """Sample one target anywhere in a window, by tempered chains."""
    solver = FreeSolver(SENSOR, ScenePrior.flat(), EFFORTS["fast"], 1.0, background_terms=1)
    theta = np.zeros((1, 3 * solver.most + 1))
    theta[0, :3] = 2.0, 2.0, FLUX
    solver.temper(stack_of(WINDOW, SENSOR, solver.basis), ONE, theta, solver.bounds(ONE))


if __name__ == "__main__":
    kind, sampler = sys.stdin.read().split()
    if kind == "pixel":
        sample_in_pixel(sampler)
    else:
        sample_anywhere()
