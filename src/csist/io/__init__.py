"""Everything that knows a file format: images of many kinds, sequences, the HDF5 store, tables of targets.

A file becomes one `ImageStack` (a single image is a stack of one), a folder a stream of them, file by file.
"""

from csist.io.folders import FrameReader, read_frames
from csist.io.images import LUMINANCE, VIDEO_SUFFIXES, ImageStack, image_kind, npz_member, read_image
from csist.io.tables import (
    TABLE_COLUMNS,
    TABLE_SUFFIXES,
    TableWriter,
    read_targets_table,
    targets_table,
    write_table,
)

__all__ = [
    "LUMINANCE",
    "TABLE_COLUMNS",
    "TABLE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FrameReader",
    "ImageStack",
    "TableWriter",
    "image_kind",
    "npz_member",
    "read_frames",
    "read_image",
    "read_targets_table",
    "targets_table",
    "write_table",
]
