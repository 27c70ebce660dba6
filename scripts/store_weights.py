"""Add weight files of `csist train` to the package, in half precision if the loss of accuracy is negligible.

    python scripts/store_weights.py runs/dista-net/dista-net-c3.safetensors ... [--start WEIGHTS] [--share 0.8]

With --start, what is stored is the weighted mean of the weights of one file and those that its training started from,
which often is better than either; the share of each is chosen on validation images.
The loss is measured in CSO-mAP on simulated validation images of the file's own sensor; above `MOST_LOST` points the
file keeps its precision. The card is stored with the score of the stored weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from csist.create import create_method
from csist.metrics import bootstrap_interval
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.training.config import TrainingConfig
from csist.training.datamodule import VALIDATION_SEED, open_data
from csist.weights.cards import read_card
from csist.weights.files import save_weights
from csist.weights.pretrained import weights_folder

MOST_LOST = 0.05
IMAGES = 4000


def mean_with(start: Path, path: Path, share: float, folder: Path) -> Path:
    """Write the weighted mean of the weights of a file and those of its start; return its path."""
    card, own, other = read_card(path), load_file(path), load_file(start)
    mean = {name: (share * own[name].float() + (1.0 - share) * other[name].float()).contiguous() for name in own}
    card["training"]["share_of_start"] = round(1.0 - share, 3)
    target = folder / path.name
    save_file(mean, target, {"csist": json.dumps(card)})
    return target


def store(path: Path, number: int) -> str:
    """Score a file on `number` images and store it; return a line that describes the result."""
    card = read_card(path)
    sensor = Sensor.from_card(card["sensor"])
    prior = ScenePrior.from_card(card["training"]["prior"])
    validation = open_data(TrainingConfig(sensor=sensor, prior=prior, val_limit=number, max_samples=1)).validation
    images, truths = np.asarray(validation.images, dtype=np.float64), validation.truths()

    def score(weights: Path) -> tuple[float, float, float]:
        method = create_method(card["method"], sensor, card["ratio"], pretrained=weights, **card["options"])
        interval = bootstrap_interval(method.predict(images), truths, VALIDATION_SEED, resamples=500)
        return interval.value, interval.low, interval.high

    method = create_method(card["method"], sensor, card["ratio"], pretrained=path, **card["options"])
    with tempfile.TemporaryDirectory() as folder:
        halved = save_weights(Path(folder) / path.name, method, card, half=True)
        full, stored = score(path), score(halved)
    half = full[0] - stored[0] < MOST_LOST
    value, low, high = stored if half else full
    card["score"] = {
        "cso_map": round(value, 3), "interval_95": [round(low, 3), round(high, 3)], "split": "simulated validation",
        "images": number, "before_rounding": round(full[0], 3),
    }  # fmt: skip
    weights_folder().mkdir(exist_ok=True)
    target = save_weights(weights_folder() / path.name, method, card, half)
    return f"{target.name}: CSO-mAP {value:.2f} in {'half' if half else 'full'} precision, {full[0]:.2f} before"


def main() -> None:
    """Store the weight files that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=IMAGES, help="number of simulated validation images")
    parser.add_argument("--start", type=Path, help="weights that the training of one file started from")
    parser.add_argument("--share", type=float, default=0.5, help="share of the file in the mean with its start")
    options = parser.parse_args()
    if options.start is not None and len(options.weights) > 1:
        parser.error("--start goes with one file")
    with tempfile.TemporaryDirectory() as folder:
        for path in options.weights:
            if options.start is not None:
                path = mean_with(options.start, path, options.share, Path(folder))
            print(store(path, options.images))


if __name__ == "__main__":
    main()
