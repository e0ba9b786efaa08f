"""The lock of an output directory."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnjax.devices.processes import leads
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files.atomic import explained
from cnnjax.files.temporary import sync

_LOCK = ".lock"


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Create an output directory if needed, and lock it against other runs within this context.

    The kernel releases the lock when the process ends, however it ends. On exit, directories that were
    created here and are still empty are removed.

    Raises:
        ArgumentError: `run` is a file.
        UserError: the directory cannot be created or written, or another process holds the lock.
    """
    if not leads():
        yield
        return
    with explained(run):
        if run.exists() and not run.is_dir():
            raise ArgumentError(f"--out {run} is a file; choose another directory")
        missing = [path for path in (run, *run.parents) if not path.exists()]
    lock = None
    try:
        with explained(run):
            run.mkdir(parents=True, exist_ok=True)
            for path in missing:
                sync(path.parent)
            lock = _lock(run)
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                (run / _LOCK).unlink()
            os.close(lock)
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def busy(run: Path) -> bool:
    """Whether another process holds the lock of an output directory."""
    try:
        with (run / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def watched(run: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that raises `UserError` if the directory `run` is no longer the one that it is now."""
    handle = os.open(run, os.O_RDONLY) if leads() else None

    def require_in_place() -> None:
        with suppress(OSError):
            if handle is None or os.path.samestat(os.fstat(handle), os.stat(run)):
                return
        raise UserError(
            f"{run} was moved or deleted while it was being written; put it back and continue with --resume"
        )

    try:
        yield require_in_place
    finally:
        if handle is not None:
            os.close(handle)


def _lock(run: Path) -> int:
    """Lock the directory; return the file descriptor that holds the lock until it is closed."""
    path = run / _LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(
                f"another process is at work in {run}; wait for it to end, or choose another --out"
            ) from None
        except OSError as error:
            # Some network file systems do not support locks; train there without one.
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        # The previous holder may have removed the file after it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)
