"""The command line: parse, call, print."""

from cnnjax.cli.commands import COMMANDS, DESCRIPTION, main

__all__ = ["COMMANDS", "DESCRIPTION", "main"]
