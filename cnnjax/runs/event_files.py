"""TensorBoard's event files, without TensorFlow: what Keras's callback writes, under the same names.

    RUN/tensorboard/train/events.out.tfevents...        epoch_loss, epoch_accuracy
    RUN/tensorboard/validation/events.out.tfevents...   epoch_loss, epoch_accuracy

Steps are epochs counted from 0, as Keras's are. The history is what is true: whenever a run begins or goes
on, the files are made anew from it, so that no step is there twice and none is missing.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cnnjax.errors import UserError
from cnnjax.files import explained, write_bytes
from cnnjax.runs.run_directory import TENSORBOARD, Row

PARTS: Mapping[str, str] = MappingProxyType({"train": "", "validation": "val_"})
"""Subdirectories, and how their columns in the history begin."""


def require() -> None:
    """Raise `UserError`, saying what to install, where the extra is missing."""
    _tensorboard()


def begin(run: Path, rows: Sequence[Row]) -> Callable[[Row], None]:
    """Replace the event files of a run by ones with `rows`; returns what adds a row to them.

    Raises:
        UserError: the extra is missing, or the files cannot be written.
    """
    now = time.time()
    files = {part: run / TENSORBOARD / part / f"events.out.tfevents.{now:.0f}.cnnjax" for part in PARTS}
    ended = [now - sum(row["seconds"] for row in rows[i + 1 :]) for i in range(len(rows))]
    for part, path in files.items():
        content = _version(now) + b"".join(_epoch(part, row, at) for row, at in zip(rows, ended, strict=True))
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for old in path.parent.glob("events.out.tfevents.*"):
                old.unlink()
        write_bytes(path, content)

    def add(row: Row) -> None:
        for part, path in files.items():
            with explained(path), path.open("ab") as file:
                file.write(_epoch(part, row, time.time()))

    return add


def _version(at: float) -> bytes:
    _, protocol = _tensorboard()
    return _record(protocol.Event(wall_time=at, file_version="brain.Event:2"))


def _epoch(part: str, row: Row, at: float) -> bytes:
    writer, protocol = _tensorboard()
    del writer
    values = [
        {"tag": f"epoch_{name}", "simple_value": row[PARTS[part] + name]} for name in ("loss", "accuracy")
    ]
    return _record(protocol.Event(wall_time=at, step=int(row["epoch"]) - 1, summary={"value": values}))


def _record(event: Any) -> bytes:
    """A protocol buffer between its length and its sums."""
    writer, _ = _tensorboard()
    content = io.BytesIO()
    writer(content).write(event.SerializeToString())
    return content.getvalue()


def _tensorboard() -> tuple[Any, Any]:
    """The writer of records, and the module of `Event`."""
    try:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise UserError(
            f"--tensorboard needs an extra: pip install 'cnnjax[tensorboard]' ({error})"
        ) from error
    return RecordWriter, event_pb2
