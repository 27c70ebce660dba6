"""`csist unmix`: from images of any kind to a table of targets."""

from csist.cli.unmix.command import unmix

__all__ = ["unmix"]
