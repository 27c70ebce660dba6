"""Sources that are wider than the PSF: their light, their fit, and whether they explain a blob better than points."""
