"""The directories of a user in which data sets are kept."""

import os
from pathlib import Path

from cnnjax.errors import UserError


def directory(variable: str, default: str) -> Path:
    """Return the directory that an environment variable names, or `default`; either may begin with ~.

    Raises:
        UserError: there is no home directory: neither HOME nor an entry of the user database says where.
    """
    path = os.path.expanduser(os.environ.get(variable, "") or default)
    if path.startswith("~"):
        raise UserError(f"no home directory for {path}; set HOME or {variable}, or give --data-dir")
    return Path(path)
