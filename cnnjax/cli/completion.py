"""Shell scripts that complete commands and flags when TAB is pressed, made by tyro."""

import contextlib
import io
from typing import Any

import tyro

SHELLS = ("bash", "zsh", "fish")

_ADDED = {
    # What stands without a flag, RUN and IMAGE, tyro does not complete: names of files are what is meant.
    '== "__TYRO_COMPLETE_FILES__" ]]': '== "__TYRO_COMPLETE_FILES__" || -z "$completions" ]]',
    # Of the word itself, not of all before it; and a directory is followed by a slash, not by a space.
    'COMPREPLY=($(compgen -f -- "$cur"))': "compopt -o filenames 2> /dev/null\n"
    "    local IFS=$'\\n'\n"
    '    COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))',
}


def script(command: Any, prog: str, shell: str) -> str:
    """The script for one of `SHELLS`, for the commands that `tyro.cli` makes of `command`."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(command, prog=prog, args=["--tyro-write-completion", shell, "-"])
    made = text.getvalue()
    for theirs, ours in _ADDED.items():
        made = made.replace(theirs, ours)
    return made
