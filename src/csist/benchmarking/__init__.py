"""Measurements that the project's tables are made of: `csist benchmark` and `csist benchmark real`.

`methods` runs every method on a dataset. The other modules are about measured images whose truth is known in part:
each has `run`, from a folder of data to figures that JSON can hold, and `draw`, from these figures to a picture.
What one compares, and where its truth comes from, stands at its top.
"""
