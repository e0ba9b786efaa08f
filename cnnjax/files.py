"""Files: written whole or not at all, one writer to a directory, and where results come from.

Of several processes, the one that leads writes.
"""

import csv
import errno
import fcntl
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cnnjax import __version__
from cnnjax.devices.processes import leads
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError, UserError

_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_LOCK = ".lock"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space and try again, or choose another --out"
        else:
            advice = "choose another --out"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def make_directory(path: Path) -> None:
    """Make a directory and those above it, unless they are there."""
    if leads():
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Make the directory of a run, unless it is there, and hold it for this process and those it leads.

    The lock is the kernel's: it ends with the process, however that ends. Directories made here that are
    still empty at the end are taken away again, and what a killed process left half-written at the start.

    Raises:
        ArgumentError: `run` is a file.
        UserError: it cannot be made or written, or another process holds it.
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


def _lock(run: Path) -> int:
    """The descriptor that holds the lock until it is closed."""
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
            # Some network file systems have no locks; that shall not keep anyone from training.
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        # Its last holder may have removed the file after it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def read_json(path: Path) -> dict[str, Any] | None:
    """The record in a JSON file; None where there is no file.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path} is damaged: not a JSON record; put it back from a copy, or use --overwrite")
    return record


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file."""
    if not leads():
        return
    with explained(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def clear_half_written(directory: Path, name: str = "*.*") -> None:
    """Delete what `write_bytes` left beside files of such a name when its process was killed."""
    for torn in directory.glob(f".{name}-*"):
        torn.unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON; NaN and infinity are refused by JSON and so by this."""
    write_bytes(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with its heads; floats have all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def provenance(devices: int | None = None) -> dict[str, Any]:
    """Versions and device: what a figure needs beside it to be believed.

    `devices` says how many were at work, if not all.
    """
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {
            "cnnjax": __version__,
            **{name: metadata.version(name) for name in _VERSIONS},
        },
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": devices or jax.device_count(),
        },
        "host": {"system": platform.platform(), "cpus": os.cpu_count()},
        "mask_scheme": MASK_SCHEME,
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
