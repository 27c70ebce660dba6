"""The command `csist`. Exit codes: 0 done, 1 failure, 2 bad use, 130 interrupted; an error is one line.

A new command is one file with one function, and its name in `entry`: it raises `InputError` for what the user
can mend, and `main` turns every exception into its line and code. Heavy imports belong inside the functions, so
that `csist --help` answers at once.
"""

from csist.cli.entry import app, main

__all__ = ["app", "main"]
