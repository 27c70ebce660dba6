"""How a scene becomes an image: point spread functions, the sensor, and what physics allows to recover."""
