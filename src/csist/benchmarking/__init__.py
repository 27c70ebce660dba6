"""Measurements that the project's tables are made of: all methods on a dataset."""
