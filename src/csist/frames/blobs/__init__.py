"""From the peaks of a frame to its targets, one window at a time."""
