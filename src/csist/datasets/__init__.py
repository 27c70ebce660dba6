"""Benchmark datasets: generation, and reading and writing of the published layout."""

from csist.datasets.generate import generate, split_sizes
from csist.datasets.grokcso import GrokCSOData, convert, is_grokcso, read_grokcso, write_grokcso
from csist.datasets.labels import Convention
from csist.datasets.pairs import WindowDataset
from csist.datasets.sequences import generate_sequences, sequence_split_sizes
from csist.io.store import Split, SplitArrays, Store, check_store_path, load, write_store
from csist.scenes import ScenePrior, sample_scenes

__all__ = [
    "Convention",
    "GrokCSOData",
    "ScenePrior",
    "Split",
    "SplitArrays",
    "Store",
    "WindowDataset",
    "check_store_path",
    "convert",
    "generate",
    "generate_sequences",
    "is_grokcso",
    "load",
    "read_grokcso",
    "sample_scenes",
    "sequence_split_sizes",
    "split_sizes",
    "write_grokcso",
    "write_store",
]
