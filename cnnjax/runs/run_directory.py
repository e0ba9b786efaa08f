"""The run directory: the files that a run leaves behind.

RUN/config.json            what was asked for
RUN/history.csv            epoch,loss,accuracy,val_loss,val_accuracy,seconds
RUN/result.json            final metrics, and where they come from
RUN/curves.png, RUN/confusion_matrix.png
RUN/checkpoints/epoch-N/   the state after epoch N (cnnjax.runs.checkpoints)
RUN/tensorboard/           if asked for (cnnjax.runs.event_files)
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.errors import UserError
from cnnjax.files import clear_half_written, explained, read_json, write_csv

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
FILES = ("config.json", "history.csv", "result.json", "curves.png", "confusion_matrix.png")
_MADE_LATER = ("confused.png", "model.stablehlo", "model.onnx", "report.html")

Row = Mapping[str, float]


def holds_run(run: Path) -> bool:
    """Whether any file of a run is in the directory."""
    return any((run / name).exists() for name in (*FILES, CHECKPOINTS))


def clear(run: Path) -> None:
    """Delete the files of a run, and nothing else."""
    with explained(run):
        for name in (*FILES, *_MADE_LATER):
            (run / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS, TENSORBOARD):
            if (run / name).exists():
                shutil.rmtree(run / name)


def finished(run: Path, epochs: int) -> dict[str, Any] | None:
    """The record in result.json if the run in this directory has all its `epochs` and files, else None."""
    try:
        record = read_json(run / "result.json")
    except UserError:
        return None
    if record is None or record.get("epochs") != epochs:
        return None
    return record if all((run / name).exists() for name in FILES) else None


def write_history(run: Path, rows: Sequence[Row]) -> None:
    """Write history.csv: all digits of the metrics, seconds to the millisecond."""
    cells = ([int(row["epoch"]), *(row[c] for c in COLUMNS[1:-1]), f"{row['seconds']:.3f}"] for row in rows)
    write_csv(run / "history.csv", COLUMNS, cells)


def clear_torn(run: Path) -> None:
    """Delete what a killed process left half-written beside the files of a run."""
    for name in FILES:
        clear_half_written(run, name)
