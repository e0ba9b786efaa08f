"""What TAB offers. The shells run this file by itself, so it uses Python's standard library alone."""

import glob
import os
from typing import Any

MARKS = ("config.json", "checkpoints", "protocol.json", "summary.json")
"""What a directory of a run or an experiment holds."""
FILES = "files"
"""The answer where the shell should offer file names."""
PATHS = "paths"
"""Before directories."""
WORDS = "words"
"""Before words, each with a tab and its description."""


def offers(commands: dict[str, Any], words: list[str]) -> list[str]:
    """Return `FILES`, or `PATHS` or `WORDS` and the completions of the last word.

    Args:
        commands: by name: its "help"; its "flags", each with its help and its values: None if it takes none,
            or a list with `FILES` where files are too; and "runs", how many of its positional arguments are
            directories of runs or experiments.
        words: of the command line, after the program.
    """
    # Bash makes three words of --model=keras.
    *before, word = [each for each in words[:-1] if each != "="] + [words[-1].removeprefix("=")]
    if not before:
        return _matching({name: command["help"] for name, command in commands.items()}, word)
    command = commands.get(before[0], {"flags": {}, "runs": 0})
    flags = command["flags"]
    _, values = flags.get(before[-1], ("", None))
    if values is not None and not word.startswith("-"):
        found = _matching(dict.fromkeys((name for name in values if name != FILES), ""), word)
        return [FILES] if FILES in values and len(found) == 1 else found
    if word.startswith("-") or not (word or command["runs"]):
        return _matching({flag: text for flag, (text, _) in flags.items()}, word)
    given = [
        each
        for i, each in enumerate(before[1:])
        if not each.startswith("-") and flags.get(before[i], ("", None))[1] is None
    ]
    directories = _directories(word) if len(given) < command["runs"] else []
    return [PATHS, *directories] if directories else [FILES]


def _matching(words: dict[str, str], start: str) -> list[str]:
    return [WORDS, *(f"{word}\t{text}" for word, text in words.items() if word.startswith(start))]


def _directories(start: str) -> list[str]:
    """Return the directories of runs and experiments whose path begins so, one or two levels deep."""
    found = {path for depth in ("*/", "*/*/") for path in glob.glob(glob.escape(start) + depth)}
    return sorted(path[:-1] for path in found if any(os.path.exists(path + mark) for mark in MARKS))
