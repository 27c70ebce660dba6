"""`csist unmix`: write the targets of images to a table."""

from csist.cli.unmix.command import unmix

__all__ = ["unmix"]
