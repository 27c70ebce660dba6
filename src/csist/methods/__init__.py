"""Unmixing methods behind one table."""
