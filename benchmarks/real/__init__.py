"""Measured images whose truth is known in part, see `bench_real.py`.

Each module has `run`, from a folder of data to figures that JSON can hold, and `draw`, from these figures to a picture.
What one compares, and where its truth comes from, stands at its top.
"""
