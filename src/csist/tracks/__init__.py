"""Tracking of targets through sequences of frames."""
