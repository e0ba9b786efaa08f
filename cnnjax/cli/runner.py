"""From arguments to an exit code, for the command line and every experiment."""

import contextlib
import gc
import inspect
import io
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from cnnjax.cli import compiled, completion, mistakes, output
from cnnjax.devices import processes, signals
from cnnjax.devices.processes import ALONE
from cnnjax.errors import ArgumentError, UserError

Command = Callable[[], None]


def shown(metavar: str, default: object = "", help: str | None = None) -> Any:
    """Set what --help shows for a flag: its metavar, and the default that None or an empty value means."""
    hint = "" if default == "" else f"(default: {default})"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, help=help)


RunDirectory = Annotated[Path, tyro.conf.Positional, shown("RUN", help="Run directory (train --out).")]
_IDX = shown("DIR", "the run's own, or a download", "Directory with the four IDX files (plain or .gz).")
DataDirectory = Annotated[Path | None, _IDX]
OutDirectory = Annotated[Path | None, shown("DIR")]
"""Where results go; the docstring of the flag says where by default."""


class _Preformatted(str):
    """A description whose line breaks tyro keeps: it would join the lines of a paragraph into one."""

    def split(self, sep: Any = None, maxsplit: Any = -1) -> list[str]:
        return [str(self)]


class _Help(io.StringIO):
    """What tyro prints, in the characters of standard output; without colours, which errors would have."""

    encoding: Any = None


def run(
    command: Callable[..., Command] | Mapping[str, Callable[..., Command]],
    description: str,
    arguments: Sequence[str] | None = None,
    prog: str = "cnnjax",
) -> int:
    """Parse arguments, run the command and return its exit code.

    An error is printed as one line on stderr; `--debug` adds the traceback.

    Args:
        command: a callable dataclass whose fields are the flags, or several of them by name.
        description: the text at the top of `--help`, at most 80 columns wide.
        arguments: defaults to those of the process.
        prog: the program's name in `--help`.

    Returns:
        0 on success, 1 on any other error, 2 on a wrong argument, 130 on Ctrl-C, 143 on SIGTERM, 129 on
        SIGHUP, 138 on SIGUSR1, 141 if nobody reads the output any more (which stops no training).
    """
    if arguments is not None:
        return _run(command, description, list(arguments), prog)
    gc.freeze()  # what is imported stays: going through it again and again takes a tenth of a short run
    output.protect()
    compiled.cache_programs()
    return output.exit_code(_run(command, description, sys.argv[1:], prog, exits=True))


def _run(command: Any, description: str, given: list[str], prog: str, exits: bool = False) -> int:
    """Do it; `exits`: end the process at once after an interrupt."""
    debug = "--debug" in given
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # for --model package.module:NAME, as with `python -m`
    try:
        with signals.as_exceptions():
            job = _parse(command, description, [word for word in given if word != "--debug"], prog)
            with processes.joined(getattr(job, "processes", ALONE)):
                job()
        return 0
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        said = output.printable(str(stop)) or "interrupted; finished work is on disk"
        output.complain(f"cnnjax: {said}")
        code = 128 + getattr(stop, "number", signal.SIGINT)
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = output.printable(" ".join(str(error).split()))
        if not isinstance(error, UserError):
            message = f"{type(error).__name__}: {message} (--debug shows where)"
        output.complain(f"cnnjax: error: {message}")
        code = 2 if isinstance(error, ArgumentError) else 1
        processes.leave(code)
        return code
    # The exception is gone here, and with it its frames: their contexts have closed.
    if exits:
        # A normal exit would first wait for all work queued on the device.
        sys.stdout.flush()
        os._exit(code)
    return code


def _parse(command: Any, description: str, arguments: list[str], prog: str) -> Command:
    """Return the command that the arguments name; raise tyro's errors as a one-line `ArgumentError`."""
    config, commands = (tyro.conf.DisallowNone,), command if isinstance(command, Mapping) else {}
    if isinstance(command, Mapping):
        arguments, config = arguments or ["--help"], (*config, tyro.conf.FlagCreatePairsOff)
        summaries = {name: (inspect.getdoc(each) or "").split("\n")[0] for name, each in command.items()}
        command = _subcommands(command, summaries if arguments[0] in ("-h", "--help") else None)
        if arguments[0] == "--completion":
            if len(arguments) != 2 or arguments[1] not in completion.SHELLS:
                raise ArgumentError(f"--completion takes one of {', '.join(completion.SHELLS)}")
            return partial(print, completion.script(command, summaries, prog, arguments[1]))
    errors, help, text = io.StringIO(), _Help(), _Preformatted(description.strip())
    help.encoding = sys.stdout.encoding
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(help):
            return tyro.cli(command, args=arguments, prog=prog, description=text, config=config)
    except SystemExit as end:
        if end.code:
            # A frame has a title and parts, drawn with lines or, where those cannot be written, with dashes.
            parts = re.split("[─-]{8,}", errors.getvalue().replace("╮", "─" * 8))
            message = " ".join(re.sub("[│╰╯]", " ", parts[len(parts) > 1]).split())
            known = not commands or arguments[0] in commands
            flags = _flags(command, arguments[:1] if commands and known else [])
            raise ArgumentError(mistakes.explained(message, flags, () if known else commands)) from None
        usage, _, rest = help.getvalue().partition("\n")
        usage = usage.replace(f"{{{','.join(commands)}}}", "COMMAND ...")
        print(
            textwrap.fill(usage, 80, subsequent_indent="  ", break_long_words=False), rest, sep="\n", end=""
        )
        raise


def _flags(command: Any, chosen: list[str]) -> list[str]:
    """Return the flags of a tyro command, or of the subcommand that is chosen."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(command, args=[*chosen, "--help"])
    return sorted(set(re.findall(r"(?m)^[│ ]*(?:-\w, )?(--[a-z][a-z-]+)", shown.getvalue())))


def _subcommands(commands: Mapping[str, Callable[..., Command]], summaries: Mapping[str, str] | None) -> Any:
    """Return the commands as a tyro type, described by their summaries or, if None, by their docstrings."""
    union: Any = Annotated[None, tyro.conf.Suppress]
    for name, constructor in commands.items():
        text = summaries[name] if summaries else _Preformatted(inspect.getdoc(constructor) or "")
        union |= Annotated[Any, tyro.conf.subcommand(name, constructor=constructor, description=text)]
    return union
