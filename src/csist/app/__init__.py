"""`csist app`: the toolkit in a browser, served on this machine.

`settings` holds the user's choices, `uploads` opens files, `scene` makes images from both, `work` unmixes the images,
`result` draws figures, and `page` renders results with the tables of `tables` and the data of `look` for pictures that
can be zoomed; all of these are pure functions or data. `sessions` separates users, `form` and `layout` are the page,
`handlers` answer its events and `scripts` are its scripts. `endpoint` and `request` answer programs, `guard` refuses
other web pages, and `server` serves all of it on a port.
"""

from csist.app.server import DEFAULT_PORT, LOCAL_HOST, serve

__all__ = ["DEFAULT_PORT", "LOCAL_HOST", "serve"]
