"""TensorBoard event files, written without TensorFlow, with the names that Keras's callback uses.

    RUN/tensorboard/train/events.out.tfevents...        epoch_loss, epoch_accuracy
    RUN/tensorboard/validation/events.out.tfevents...   epoch_loss, epoch_accuracy

Steps are epochs counted from 0, as in Keras. The files are rewritten from the history whenever a run starts
or resumes, so that no step is duplicated or missing.
"""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cnnjax.errors import UserError
from cnnjax.files import explained, write_bytes
from cnnjax.runs.run_directory import EVENTS, TENSORBOARD, Row

_PREFIXES = {"train": "", "validation": "val_"}  # subdirectory -> prefix of its columns in the history


def begin(run: Path, rows: Sequence[Row]) -> Callable[[Row], None]:
    """Replace the event files of a run with new ones that hold `rows`; return a function that appends a row.

    Raises:
        UserError: TensorBoard is not installed, or the files cannot be written.
    """
    now = time.time()
    files = {part: run / TENSORBOARD / part / f"events.out.tfevents.{now:.0f}.cnnjax" for part in _PREFIXES}
    ended = [now - sum(row["seconds"] for row in rows[i + 1 :]) for i in range(len(rows))]
    for part, path in files.items():
        events = [_epoch(part, row, at) for row, at in zip(rows, ended, strict=True)]
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            before = [old for old in path.parent.iterdir() if EVENTS.fullmatch(f"{part}/{old.name}")]
            write_bytes(path, b"".join([_event(wall_time=now, file_version="brain.Event:2"), *events]))
            for old in before:
                if old != path and not old.is_symlink():
                    old.unlink()

    def append(row: Row) -> None:
        for part, path in files.items():
            with explained(path), path.open("ab") as file:
                file.write(_epoch(part, row, time.time()))

    return append


def require_tensorboard() -> tuple[Any, Any]:
    """Return TensorBoard's event protocol and record writer; raise `UserError` if it is not installed."""
    try:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise UserError(
            f"--tensorboard needs an extra: pip install 'cnnjax[tensorboard]' ({error})"
        ) from error
    return event_pb2, RecordWriter


def _epoch(part: str, row: Row, at: float) -> bytes:
    values = [
        {"tag": f"epoch_{name}", "simple_value": row[_PREFIXES[part] + name]} for name in ("loss", "accuracy")
    ]
    return _event(wall_time=at, step=int(row["epoch"]) - 1, summary={"value": values})


def _event(**fields: Any) -> bytes:
    """Encode an event as a record: its protocol buffer, with length and checksums."""
    protocol, writer = require_tensorboard()
    content = io.BytesIO()
    writer(content).write(protocol.Event(**fields).SerializeToString())
    return content.getvalue()
