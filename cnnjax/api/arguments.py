"""What the functions for Python share: the data they take, and errors in the words of Python."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numpy.typing import ArrayLike

from cnnjax.data import Loaded, from_arrays
from cnnjax.errors import ArgumentError, UserError

Pair = tuple[ArrayLike, ArrayLike]
Data = str | Path | Loaded | tuple[Pair, Pair]
"""A name or a file as `--dataset` takes them; ((x_train, y_train), (x_test, y_test)), as Keras's `load_data`
returns it; or what `cnnjax.data.load` or `from_arrays` returns."""


def named_or_loaded(data: Data) -> str | Path | Loaded:
    """Make a data set of arrays as Keras returns them.

    Raises:
        ArgumentError: `data` are none of `Data`.
        UserError: an array has the wrong shape, dtype or values.
    """
    if isinstance(data, str | Path | Loaded):
        return data
    try:
        (x_train, y_train), (x_test, y_test) = data
    except (TypeError, ValueError):
        raise ArgumentError(
            f"data are {type(data)}; give a name, a file, ((x_train, y_train), (x_test, y_test)) or "
            "cnnjax.data.from_arrays(...)"
        ) from None
    return from_arrays(x_train, y_train, x_test, y_test)


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Name arguments in errors as Python does: on_nan, where the command line has --on-nan."""
    try:
        yield
    except UserError as error:
        flag = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
        error.args = (flag.sub(lambda match: match[1].replace("-", "_"), str(error)),)
        raise
