"""Benchmark scenes, the HDF5 store, and the published dataset's files."""

from csist.datasets.dataset import (
    Split,
    SplitArrays,
    Store,
    WindowDataset,
    check_store_path,
    generate,
    load,
    split_sizes,
    write_store,
)
from csist.datasets.grokcso import Convention, GrokCSOData, convert, is_grokcso, read_grokcso, write_grokcso
from csist.datasets.scenes import ScenePrior, sample_scenes

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
    "is_grokcso",
    "load",
    "read_grokcso",
    "sample_scenes",
    "split_sizes",
    "write_grokcso",
    "write_store",
]
