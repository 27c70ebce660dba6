"""Level and noise of a frame without its targets."""
