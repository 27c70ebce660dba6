"""Forward model: point spread functions, the sensor and the Cramer-Rao bound."""
