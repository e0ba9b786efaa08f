"""Errors of tyro as one line that says what to do."""

import re
from collections.abc import Collection
from difflib import get_close_matches

from cnnjax.files.misspelt import choose


def explained(message: str, flags: Collection[str], commands: Collection[str] = ()) -> str:
    """Word tyro's message about wrong arguments.

    Args:
        message: without frame and line breaks.
        flags: that there are.
        commands: that there are, where the first argument must be one.
    """
    # With several, tyro says after each to which command it belongs.
    if found := re.match(
        r"Unrecognized (?:options|or misplaced options): ([^,=]*?)(?: \(applied|[,=]|$)", message
    ):
        return _unknown(found[1], flags, commands)
    if found := re.match(r"Error parsing (\S+): .*(int\(\) with base 10|to float): '(.*?)'", message):
        flag, kind, value = found.groups()
        return f"{flag} {value} is not {'a number' if kind == 'to float' else 'a whole number'}"
    if found := re.match(r"Error parsing (\S+): .* arguments: \[(.*)\]", message):
        return f"{found[1]} cannot be {found[2].replace(chr(39), '')}; see --help"
    if found := re.match(r"invalid choice '(.*)' for argument '(.*)'. Expected one of \((.*)\)", message):
        choices = [choice for choice in re.findall(r"'(.*?)'", found[3]) if choice != "None"]
        return f"{found[2]} {found[1]} is unknown{choose(found[1], choices)}"
    if found := re.match(r"Missing value for argument '(.*)'. Expected (\d+)", message):
        return f"{found[1]} needs {found[2]} value{'s' * (found[2] != '1')}"
    if found := re.match(r"Missing from .*?: (\S+) (?:[A-Z]+ )?(.*?)\.? \(required\)", message):
        return f"{found[1]} is missing: {found[2]}"
    return message


def _unknown(word: str, flags: Collection[str], commands: Collection[str]) -> str:
    if not word.startswith("-"):
        if commands:
            return f"there is no command {word}{choose(word, commands)}"
        return f"{word!r} is one argument too many; see --help"
    initials = {"".join(part[0] for part in flag[2:].split("-")): flag for flag in flags}  # --lr
    near = [*get_close_matches(word, flags, n=1, cutoff=0.7), *filter(None, [initials.get(word[2:])])]
    return f"there is no option {word}; {f'did you mean {near[0]}?' if near else 'see --help'}"
