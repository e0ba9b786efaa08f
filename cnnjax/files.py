"""Atomic writes, the lock of an output directory, and the provenance of results.

In a run of several processes, only process 0 writes.
"""

import csv
import errno
import fcntl
import io
import json
import os
import platform
import secrets
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
    """Turn an `OSError` from writing `path` into a `UserError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space and try again, or choose another --out"
        else:
            advice = "choose another --out"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def make_directory(path: Path) -> None:
    """Create a directory and its parents if they do not exist."""
    if leads():
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)


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


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; return None if the file does not exist.

    Raises:
        UserError: the file cannot be read, or does not hold a JSON object.
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
        raise UserError(f"{path} is damaged: not a JSON object; restore it from a copy, or use --overwrite")
    return record


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, which is then renamed."""
    if not leads():
        return
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with explained(path):
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def clear_half_written(directory: Path, name: str = "*.*") -> None:
    """Delete the temporary files that killed calls of `write_bytes` left, of targets that match `name`."""
    for temporary in directory.glob(f".{name}-*"):
        temporary.unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write indented JSON. NaN and infinity raise `ValueError`, because JSON has neither."""
    write_bytes(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a header line; floats keep all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def provenance(devices: int | None = None) -> dict[str, Any]:
    """Return the versions and hardware behind a result; `devices` is the number used, by default all."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {"cnnjax": __version__, **{name: metadata.version(name) for name in _VERSIONS}},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": devices or jax.device_count(),
        },
        "host": {"system": platform.platform(), "cpus": os.cpu_count()},
        "mask_scheme": MASK_SCHEME,
    }
