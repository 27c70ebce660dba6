"""`csist app`: the toolkit in a browser, on this machine alone.

`settings` says what a user has chosen, `scene` makes images of it, `work` unmixes them and `page` shows the answer:
pure functions, all of them. `sessions` keeps users apart, `layout` is the page's form, `server` puts it on a port.
"""

from csist.app.server import DEFAULT_PORT, LOCAL_HOST, serve

__all__ = ["DEFAULT_PORT", "LOCAL_HOST", "serve"]
