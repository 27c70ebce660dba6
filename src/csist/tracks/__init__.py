"""Targets followed through sequences of frames."""
