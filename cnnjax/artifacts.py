"""The run directory: the one place that writes what a run leaves behind.

    RUN/config.json            what was asked for
    RUN/history.csv            epoch,loss,accuracy,val_loss,val_accuracy,seconds
    RUN/result.json            final metrics, and where they come from
    RUN/curves.png, RUN/confusion_matrix.png
    RUN/checkpoints/epoch-N/   the state after epoch N

Every file appears under its name complete or not at all.
"""

import csv
import errno
import io
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cnnjax import __version__
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError, UserError

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
_FILES = ("config.json", "history.csv", "result.json", "curves.png", "confusion_matrix.png")
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

Row = Mapping[str, float]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space, or choose another --out"
        else:
            advice = "choose another --out"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def create(run: Path, *, overwrite: bool = False) -> None:
    """Make the directory of a new run.

    Raises:
        ArgumentError: `run` holds a run already and `overwrite` is False, or it is a file.
        UserError: it cannot be made or written.
    """
    if run.exists() and not run.is_dir():
        raise ArgumentError(f"--out {run} is a file; choose another directory")
    if any((run / name).exists() for name in (*_FILES, "checkpoints")):
        if not overwrite:
            raise ArgumentError(
                f"{run} already holds a run; choose another --out, or give --overwrite to replace it"
            )
        with explained(run):
            for name in _FILES:
                (run / name).unlink(missing_ok=True)
            if (run / "checkpoints").exists():
                shutil.rmtree(run / "checkpoints")
    with explained(run):
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file."""
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


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON; NaN and infinity are refused by JSON and so by this."""
    write_bytes(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def write_history(run: Path, rows: Sequence[Row]) -> None:
    """Write history.csv: all digits of the metrics, seconds to the millisecond."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([int(row["epoch"]), *(repr(row[c]) for c in COLUMNS[1:-1]), f"{row['seconds']:.3f}"])
    write_bytes(run / "history.csv", text.getvalue().encode())


def provenance() -> dict[str, Any]:
    """Versions and device: what a figure needs beside it to be believed."""
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
            "count": jax.device_count(),
        },
        "host": {"system": platform.platform(), "cpus": os.cpu_count()},
        "mask_scheme": MASK_SCHEME,
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
