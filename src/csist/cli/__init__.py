"""The command `csist`. Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted; an error is one line.

To add a command, write one file with one function and register it in `entry`. It raises `InputError` for errors that
the user can fix, and `main` turns every exception into one line and an exit code. Heavy imports belong inside the
functions, so that `csist --help` responds immediately.
"""

import os

# Before NumPy is loaded. Frames and blobs are solved side by side, with small products of matrices: the threads
# of the BLAS library would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from csist.cli.entry import app, main

__all__ = ["app", "main"]
