"""Joint unmixing of the frames of a sequence: one posterior of the paths of a group."""
