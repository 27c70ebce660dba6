"""What the benchmarks share: where results go and which machine made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csist.benchmarking.common import machine

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write docs/results/NAME.json and print it."""
    text = json.dumps(result | {"machine": machine()}, indent=2) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text)
    print(text)
