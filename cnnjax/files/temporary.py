"""Temporary files and directories, which the next start removes if their process was killed.

Their names are `.NAME.cnnjax-` and eight hexadecimal digits, and nothing else is ever removed. The process
that uses one holds a lock on it, which the kernel releases when the process ends, however it ends.
"""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

OWN = re.compile(r"\..+\.cnnjax-[0-9a-f]{8}", re.DOTALL)
"""The names."""


@contextmanager
def replacement(target: Path) -> Iterator[BinaryIO]:
    """Open a file to write, which becomes `target` on disk if the context ends without an error."""
    file = _locked_file(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        sync(target.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(file.name)
        raise


@contextmanager
def directory(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a directory for the time of this context, with `purpose` in its name.

    Args:
        purpose: a word.
        parent: where it is made, by default among the temporary files of the system. What killed processes
            left there is removed.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    clear(parent)
    path = _name(parent / purpose)
    path.mkdir(mode=0o700 if parent == Path(tempfile.gettempdir()) else 0o777)
    handle = os.open(path, os.O_RDONLY)
    try:
        _lock(handle)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def clear(directory: Path, target: str | None = None) -> None:
    """Remove the temporary files and directories of dead processes.

    Args:
        directory: where to look; what is inside its directories stays.
        target: only those of the file of this name.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if OWN.fullmatch(entry.name) and target in (None, entry.name[1 : -len(".cnnjax-01234567")]):
                with suppress(OSError):
                    _remove_if_dead(entry.path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _name(target: Path) -> Path:
    return target.with_name(f".{target.name}.cnnjax-{secrets.token_hex(4)}")


def _locked_file(target: Path) -> BinaryIO:
    while True:
        file = _name(target).open("xb")
        _lock(file.fileno())
        # Another process may have found it before it was locked, and removed it.
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _lock(handle: int) -> bool:
    """Lock a file or directory; return whether this process holds the lock now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or the file system has no locks
        return False
    return True


def _remove_if_dead(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # no links; a pipe may wait for ever
    try:
        if os.fstat(handle).st_uid == os.geteuid() and _lock(handle):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    finally:
        os.close(handle)
