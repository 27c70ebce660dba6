"""Rivals from image super-resolution: networks from the image to the map that know nothing of the sensor's PSF."""
