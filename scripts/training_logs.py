"""Collect the training curves of networks from the folders of their trainings, for the figure of the documentation.

    python scripts/training_logs.py FOLDER ...

For each training, by method and ratio, adds samples, loss (median of neighbouring steps) and validation CSO-mAP to
docs/results/training.json, with the figures of the exact map if they were measured. Other trainings in it are kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from csist.files import write_text
from csist.training.logs import read_log
from csist.weights.cards import read_card

RESULT = Path(__file__).resolve().parent.parent / "docs" / "results" / "training.json"
POINTS = 60
"""Number of losses stored per training."""


def thinned(folder: Path) -> tuple[str, dict[str, list[float | None]]]:
    """Return the name and the thinned log of a training."""
    card = read_card(next(folder.glob("*.safetensors")))
    log = read_log(folder, card["training"]["batch_size"])
    steps = np.flatnonzero(np.isfinite(log["discrepancy"]))
    parts = np.array_split(steps, min(POINTS, len(steps)))
    scored = np.flatnonzero(np.isfinite(log["cso_map"]))
    samples = [float(log["samples"][part].mean()) for part in parts] + log["samples"][scored].tolist()
    loss: list[float | None] = [float(np.median(log["discrepancy"][part])) for part in parts] + [None] * len(scored)
    score: list[float | None] = [None] * len(parts) + log["cso_map"][scored].tolist()
    columns = {"samples": samples, "discrepancy": loss, "cso_map": score}
    for name in ("exact_cso_map", "exact_squared_error"):
        values = [float(value) if np.isfinite(value) else None for value in log[name][scored]]
        if any(value is not None for value in values):
            columns[name] = [None] * len(parts) + values
    return f"{card['method']}, ratio {card['ratio']}", columns


if __name__ == "__main__":
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    write_text(json.dumps(known | dict(thinned(Path(name)) for name in sys.argv[1:])) + "\n", RESULT)
