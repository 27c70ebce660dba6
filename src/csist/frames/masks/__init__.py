"""Pixels that do not count: bad, dead and saturated ones, lines, the surroundings of the footprint, trails."""
