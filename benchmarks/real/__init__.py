"""Benchmarks on measured images with partly known truth, see `bench_real.py`.

Each module has `run`, which computes JSON-ready figures from a folder of data, and `draw`, which plots them. Its
docstring states what is compared and where the truth comes from.
"""
