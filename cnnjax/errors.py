"""Errors that a user can fix; the command line prints them as one line and sets the exit code."""

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """Something outside the program is wrong; the message says what to do in one line (exit code 1)."""


class ArgumentError(UserError):
    """An argument has an invalid value (exit code 2)."""


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean adam?)" if one of the names is nearly this one; or nothing."""
    return "".join(f" (did you mean {choice}?)" for choice in get_close_matches(name, list(choices), n=1))


def choose(name: str, choices: Collection[str]) -> str:
    """End the message about an unknown name: " (did you mean adam?); use one of adam, sgd"."""
    return f"{nearest(name, choices)}; use one of {', '.join(choices)}"


def did_you_mean(path: Path, suits: Callable[[Path], bool] = Path.exists) -> str:
    """Return " (did you mean runs/a?)" if there is a path that suits, with nearly the same name; or nothing.

    A directory above it may be misspelt, too.
    """
    near, parts = Path(path.anchor), path.parts[bool(path.anchor) :]
    for i, part in enumerate(parts, 1):
        if i < len(parts) and (near / part).is_dir():
            near /= part
            continue
        try:
            names = sorted(e.name for e in near.iterdir() if (e.is_dir() if i < len(parts) else suits(e)))
        except OSError:
            return ""
        found = get_close_matches(part, names, n=1)
        if not found:
            return ""
        near /= found[0]
    return f" (did you mean {near}?)" if near != path else ""
