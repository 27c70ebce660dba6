"""`csist app`: the toolkit in a browser, served on this machine.

`settings` holds the user's choices, `scene` makes images from them, `work` unmixes the images and `page` renders the
results, with the data of `look` for pictures that can be zoomed; all of these are pure functions. `sessions` separates
users, `layout` is the form of the page and `scripts` are its scripts. `endpoint` and `request` answer programs, `guard`
refuses other web pages, and `server` serves all of it on a port.
"""

from csist.app.server import DEFAULT_PORT, LOCAL_HOST, serve

__all__ = ["DEFAULT_PORT", "LOCAL_HOST", "serve"]
