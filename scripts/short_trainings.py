"""Collect short trainings, such as those of one network with several options, for a table of the documentation.

    python scripts/short_trainings.py NAME WEIGHTS.safetensors ...

Writes docs/results/NAME.json from the files' cards: of each training the method, ratio, options, seed, budget, and
CSO-mAP on its validation images with a 95 % bootstrap interval.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from csist.cli.output import write_json
from csist.weights.cards import read_card
from docs_tables import RESULTS


def row_of(path: Path) -> dict[str, Any]:
    """Return the row of one training."""
    card = read_card(path)
    training, score = card["training"], card["score"]
    return {
        **{key: card[key] for key in ("method", "ratio", "options")},
        **{key: training[key] for key in ("seed", "samples", "minutes", "machine")},
        "images": score["images"],
        "CSO-mAP": {"value": score["cso_map"], "interval": score["interval_95"]},
    }


if __name__ == "__main__":
    name, *files = sys.argv[1:]
    write_json([row_of(Path(file)) for file in files], str(RESULTS / f"{name}.json"))
