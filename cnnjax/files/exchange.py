"""Exchange two directories in one step, so that there is no moment without either."""

import ctypes
import errno
import os
import sys
from pathlib import Path

from cnnjax.errors import UserError

EXCHANGE = 2
"""RENAME_EXCHANGE of Linux, and RENAME_SWAP of macOS."""
RELATIVE_TO_HERE = -100
"""AT_FDCWD of Linux."""


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two directories of one file system.

    Raises:
        UserError: the file system cannot do that.
        OSError: any other failure, such as missing permissions.
    """
    library, paths = ctypes.CDLL(None, use_errno=True), [os.fsencode(path) for path in (one, other)]
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*paths, EXCHANGE)
        else:
            failed = library.renameat2(RELATIVE_TO_HERE, paths[0], RELATIVE_TO_HERE, paths[1], EXCHANGE)
    except AttributeError:  # an old C library
        failed, number = True, errno.ENOSYS
    else:
        number = ctypes.get_errno()
    if not failed:
        return
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV):
        raise UserError(
            f"{one} cannot be replaced in one step on this file system; move it away, and train without "
            "--overwrite"
        )
    raise OSError(number, os.strerror(number), str(one))
