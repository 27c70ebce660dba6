"""`csist app`: the toolkit in a browser, served on this machine.

`settings` holds the user's choices, `scene` makes images from them, `work` unmixes the images and `page` renders the
results; all of these are pure functions. `sessions` separates users, `layout` is the form of the page, and `server`
serves it on a port.
"""

from csist.app.server import DEFAULT_PORT, LOCAL_HOST, serve

__all__ = ["DEFAULT_PORT", "LOCAL_HOST", "serve"]
