"""Spots of a frame that may be targets, before any fit."""
