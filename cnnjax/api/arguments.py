"""Errors in the words of Python, where the rest of the package speaks of flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cnnjax.errors import UserError


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Name arguments in errors as Python does: on_nan, where the command line has --on-nan."""
    try:
        yield
    except UserError as error:
        flag = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
        error.args = (flag.sub(lambda match: match[1].replace("-", "_"), str(error)),)
        raise
