"""The entry point: `python -m cnnjax`."""

import sys

from cnnjax import cli


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
