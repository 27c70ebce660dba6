"""Everything that knows a file format: images of many kinds, sequences, the HDF5 store, tables of targets.

A file becomes one `ImageStack` (a single image is a stack of one), a folder a stream of them, file by file.
"""

from csist.io.arrays import npy_header, npz_member
from csist.io.exports import EXPORTS, holds_photons
from csist.io.folders import FrameReader, read_frames
from csist.io.formats import VIDEO_SUFFIXES, ReadOptions, image_kind, parse_range, parse_roi, split_selector
from csist.io.headers import Header
from csist.io.images import ImageStack, read_image
from csist.io.pictures import LUMINANCE
from csist.io.quantities import Quantities, parse_pixel_scales
from csist.io.samples import sample_frames
from csist.io.tables import read_targets_table
from csist.io.writers import (
    TABLE_COLUMNS,
    TABLE_SUFFIXES,
    TableWriter,
    check_form,
    rows_table,
    targets_table,
    write_table,
)

__all__ = [
    "EXPORTS",
    "LUMINANCE",
    "TABLE_COLUMNS",
    "TABLE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FrameReader",
    "Header",
    "ImageStack",
    "Quantities",
    "ReadOptions",
    "TableWriter",
    "check_form",
    "holds_photons",
    "image_kind",
    "npy_header",
    "npz_member",
    "parse_pixel_scales",
    "parse_range",
    "parse_roi",
    "read_frames",
    "read_image",
    "read_targets_table",
    "rows_table",
    "sample_frames",
    "split_selector",
    "targets_table",
    "write_table",
]
