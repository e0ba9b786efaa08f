"""Errors that a user can fix; the command line prints them as one line and sets the exit code."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something outside the program is wrong; the message says what to do in one line (exit code 1)."""


class ArgumentError(UserError):
    """An argument has an invalid value (exit code 2)."""


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def wrong_and_advice(message: str) -> tuple[str, str]:
    """Split a message at its last "; " into what is wrong and what to do; "" if it does not say that."""
    wrong, _, advice = message.rpartition("; ")
    return (wrong, advice) if wrong else (message, "")


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean adam?)" if one of the names is nearly this one; or nothing."""
    return "".join(f" (did you mean {choice}?)" for choice in get_close_matches(name, list(choices), n=1))


def choose(name: str, choices: Collection[str]) -> str:
    """End the message about an unknown name: " (did you mean adam?); use one of adam, sgd"."""
    return f"{nearest(name, choices)}; use one of {', '.join(choices)}"
