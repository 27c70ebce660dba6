"""Benchmarks on measured images whose truth is known to some degree: `csist benchmark real`.

Every part is a module with `run`, from a folder of data to figures that JSON can hold, and `draw`, from these figures
to a picture. What a part compares, and where its truth comes from, stands at the top of its module.
"""
