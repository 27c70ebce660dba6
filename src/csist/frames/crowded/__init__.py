"""Frames in which every target overlaps its neighbours."""
