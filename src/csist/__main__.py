"""`python -m csist` is the command `csist`."""

import sys

from csist.cli import main

if __name__ == "__main__":
    sys.exit(main())
