"""Errors that a user can fix; the command line prints them as one line and sets the exit code."""


class UserError(Exception):
    """Something outside the program is wrong; the message says what to do in one line (exit code 1)."""


class ArgumentError(UserError):
    """An argument has an invalid value (exit code 2)."""


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
