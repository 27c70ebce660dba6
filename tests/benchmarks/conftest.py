"""The benchmarks are scripts beside the package: their folder has to be made known."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

collect_ignore_glob = [] if FOLDER.is_dir() else ["test_*.py"]

sys.path.insert(0, str(FOLDER))
