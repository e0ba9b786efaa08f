"""Standard output and standard error that never end the work: closed, broken, full, or of few characters."""

import contextlib
import io
import os
import shutil
import signal
import sys
import textwrap
from typing import Any


class Output(io.TextIOWrapper):
    """A text stream that drops what cannot be written, and replaces characters that it does not have."""

    error: OSError | None = None
    """Why text was dropped."""

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.error = self.error or error
        # What is buffered is still written, at the latest when Python exits.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def protect() -> None:
    """Replace the standard streams of this process by such ones; closed ones by the null device."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process runs)
        elif type(stream) is io.TextIOWrapper:
            buffered: dict[str, Any] = {
                "line_buffering": stream.line_buffering,
                "write_through": stream.write_through,
            }
            setattr(sys, name, Output(stream.buffer, stream.encoding, "replace", **buffered))


def exit_code(code: int) -> int:
    """Return the exit code of a command: its own unless it is 0 and a part of its output was dropped.

    As with other programs, a reader that left, such as `head`, makes it 128 + SIGPIPE without a word.
    """
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if code or error is None:
        return code
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    with contextlib.suppress(OSError):
        print(f"cnnjax: error: cannot write to standard output: {error.strerror}", file=sys.stderr)
    return 1


def complain(line: str) -> None:
    """Print a line on standard error; on a terminal, it breaks between words."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)


def printable(text: str) -> str:
    r"""Return text with an escape such as \x1b for each character that could command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
