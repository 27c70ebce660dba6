"""Kinds of pixels in words, in a module without the solver, for summaries and legends."""

KIND_WORDS = {
    "nan": "without a value",
    "outside": "outside the footprint",
    "line": "in bad rows or columns",
    "streak": "in trails",
}
"""Kinds of pixels in words; the others are called by their names."""
