"""Mistakes a user can make and mend; the command line turns them into one line and an exit code."""


class UserError(Exception):
    """Something outside the program is wrong; the message is one line that says what to do (exit code 1)."""


class ArgumentError(UserError):
    """An argument has a value that cannot be used (exit code 2)."""
