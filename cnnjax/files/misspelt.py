"""What was meant, where there is nothing of this name."""

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path


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


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean adam?)" if one of the names is nearly this one; or nothing."""
    return "".join(f" (did you mean {choice}?)" for choice in get_close_matches(name, list(choices), n=1))


def choose(name: str, choices: Collection[str]) -> str:
    """End the message about an unknown name: " (did you mean adam?); use one of adam, sgd"."""
    return f"{nearest(name, choices)}; use one of {', '.join(choices)}"
