"""Files in and out: images of many formats, tables of targets, outputs that are complete or absent.

A file becomes one `ImageStack` (a single image is a stack of one), a folder a stream of them, file by file.
"""

from csist.io.arrays import npy_header, npz_member
from csist.io.files import atomic_path, check_new_folder, check_writable, one_line, reading, write_text
from csist.io.formats import VIDEO_SUFFIXES, ReadOptions, image_kind, parse_range, parse_roi, split_selector
from csist.io.frames import FrameReader, natural_key, read_frames
from csist.io.headers import Header
from csist.io.images import ImageStack, read_image
from csist.io.pictures import LUMINANCE
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
    "Header",
    "ImageStack",
    "ReadOptions",
    "TableWriter",
    "atomic_path",
    "check_new_folder",
    "check_writable",
    "image_kind",
    "natural_key",
    "npy_header",
    "npz_member",
    "one_line",
    "parse_range",
    "parse_roi",
    "read_frames",
    "read_image",
    "read_targets_table",
    "reading",
    "split_selector",
    "targets_table",
    "write_table",
    "write_text",
]
