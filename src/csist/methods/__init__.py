"""Unmixing methods behind one registry."""

from csist.methods.registry import create_method, list_methods

__all__ = ["create_method", "list_methods"]
