"""Files that appear whole or not at all. In a run of several processes, only process 0 writes."""

import csv
import errno
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cnnjax.devices.processes import leads
from cnnjax.errors import UserError
from cnnjax.files import temporary

LARGEST_RECORD = 1_000_000_000
"""Bytes of a JSON file or a table at most."""


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
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                temporary.sync(path.parent)


def read_bytes(path: Path) -> bytes | None:
    """Read a file; return None if it does not exist.

    Raises:
        UserError: it cannot be read, or is no file of at most `LARGEST_RECORD` bytes.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_RECORD:  # reading a pipe or a device may never end
            raise UserError(f"{path} is not a file of at most {LARGEST_RECORD:,} bytes; move it away")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; return None if the file does not exist.

    Raises:
        UserError: the file cannot be read, or does not hold a JSON object.
    """
    content = read_bytes(path)
    if content is None:
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path} is damaged: not a JSON object; restore it from a copy")
    return record


def read_csv(path: Path) -> list[dict[str, Any]] | None:
    """Read a table, its rows by the names in the header line; return None if the file does not exist.

    Raises:
        UserError: the file cannot be read, or is no table.
    """
    content = read_bytes(path)
    if content is None:
        return None
    try:
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a copy") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, which is then renamed."""
    if not leads():
        return
    temporary.clear(path.parent, path.name)
    with explained(path), temporary.replacement(path) as file:
        file.write(content)


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
