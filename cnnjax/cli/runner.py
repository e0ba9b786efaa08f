"""From arguments to an exit code: what the command line and every experiment share."""

import contextlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from cnnjax.cli import completion
from cnnjax.devices import processes, signals
from cnnjax.devices.processes import ALONE
from cnnjax.errors import ArgumentError, UserError

Command = Callable[[], None]

RunDirectory = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
DataDirectory = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]


def run(
    command: Callable[..., Command] | Mapping[str, Callable[..., Command]],
    description: str,
    arguments: Sequence[str] | None = None,
    prog: str = "cnnjax",
) -> int:
    """Parse the arguments, run the command they ask for, and return the exit code.

    A mistake is one line on stderr; `--debug` adds the traceback.

    Args:
        command: a dataclass whose fields are the flags and whose instances are called, or several by name.
        description: a line for `--help`.
        arguments: those of the process, unless given.
        prog: the name in the messages of `--help`.

    Returns:
        0 success, 1 something outside the program is wrong, 2 a wrong argument, 130 Ctrl-C, 143 SIGTERM.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        with signals.as_exceptions():
            job = _parse(command, description, [word for word in given if word != "--debug"], prog)
            with processes.joined(getattr(job, "processes", ALONE)):
                job()
        return 0
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        print(f"cnnjax: {str(stop) or 'interrupted; what is finished is on disk'}", file=sys.stderr)
        code = 128 + (signal.SIGTERM if isinstance(stop, signals.Terminated) else signal.SIGINT)
        if arguments is None:
            # An orderly exit would first wait for all that the device has been given to do.
            sys.stdout.flush()
            os._exit(code)
        return code
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = " ".join(str(error).split())
        if not isinstance(error, UserError):
            message = f"{type(error).__name__}: {message} (--debug shows where)"
        print(f"cnnjax: error: {message}", file=sys.stderr)
        code = 2 if isinstance(error, ArgumentError) else 1
        processes.leave(code)
        return code


def _parse(command: Any, description: str, arguments: list[str], prog: str) -> Command:
    """The command that the arguments ask for; tyro's framed complaint is an `ArgumentError` of one line."""
    complaint = io.StringIO()
    config = ()
    if isinstance(command, Mapping):
        arguments, config = arguments or ["--help"], (tyro.conf.FlagCreatePairsOff,)
        command = _choice(command, listed=arguments[0] in ("-h", "--help"))
        if arguments[0] == "--completion":
            if len(arguments) != 2 or arguments[1] not in completion.SHELLS:
                raise ArgumentError(f"--completion takes one of {', '.join(completion.SHELLS)}")
            return partial(print, completion.script(command, prog, arguments[1]))
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command, args=arguments, prog=prog, description=description, config=config)
    except SystemExit as end:
        if end.code:
            first = re.split("─{8,}", complaint.getvalue().split("╮", 1)[-1])[0]
            raise ArgumentError(" ".join(re.sub("[│╰╯]", " ", first).split())) from None
        raise


def _choice(commands: Mapping[str, Callable[..., Command]], listed: bool) -> Any:
    """One of the commands, as tyro's type; in a list of them, the first line of a help is enough."""

    def about(constructor: Callable[..., Command]) -> str | None:
        return (constructor.__doc__ or "").split("\n", 1)[0] if listed else None

    known = tuple(
        Annotated[Any, tyro.conf.subcommand(name, constructor=made, description=about(made))]
        for name, made in commands.items()
    )
    return Union[(*known, Annotated[None, tyro.conf.Suppress])]
