"""Compile the solver once, before several processes test it: they load the compiled code instead of making it each.

`make test` runs this first. Without it the tests pass just as well, and compile what they need themselves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import csist
from csist.methods.continuous.limit import posterior_limit

SENSOR = csist.Sensor(read_noise=1.0)
PRIOR = csist.ScenePrior.csist_100k()
FLAT = csist.ScenePrior.flat()
SKY = csist.Sensor(csist.GaussianPSF(1.1), shape=(40, 50), background=50.0, read_noise=2.0)


def main() -> None:
    """Unmix windows and a frame in every way that has compiled code of its own."""
    scenes = csist.sample_scenes(PRIOR, SENSOR, 2, seed=8)
    images = np.stack([SENSOR.observe(scene, seed) for seed, scene in enumerate(scenes)])
    for mode in ("fast", "accurate"):
        for prior in (PRIOR, FLAT):
            csist.unmix(images, SENSOR, prior, mode=mode)
    csist.create_method("ista+refine", SENSOR).predict(images)
    csist.create_method("ista+centroid", SENSOR).predict(images)
    posterior_limit(images, scenes, SENSOR, PRIOR, steps=200)
    posterior_limit(images, scenes, SENSOR, replace(FLAT, count_range=(1, 2)), steps=200)
    frame = SKY.observe(csist.Targets(x=[20.3, 23.1], y=[30.2, 31.0], intensity=[1500.0, 1200.0]), 0)
    for detector in ("contrast", "matched", "crowded"):
        csist.unmix(frame, SKY, detector=detector, mode="fast")


if __name__ == "__main__":
    main()
