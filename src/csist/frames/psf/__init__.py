"""The PSF, measured on a frame's own sources."""
