"""From a map on the sub-pixel grid to targets."""
