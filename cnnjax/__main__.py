"""The entry point of `python -m cnnjax`."""

import sys

from cnnjax import cli

if __name__ == "__main__":
    sys.exit(cli.main())
