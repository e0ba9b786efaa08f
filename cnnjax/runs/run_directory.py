"""The run directory: the files that a run writes.

RUN/config.json            the configuration
RUN/history.csv            epoch,loss,accuracy,val_loss,val_accuracy,seconds
RUN/result.json            final metrics and their provenance
RUN/curves.png, RUN/confusion_matrix.png   drawn last; result.json names those that cannot be drawn
RUN/checkpoints/epoch-N/   the state after epoch N (cnnjax.runs.checkpoints)
RUN/tensorboard/           with --tensorboard (cnnjax.runs.event_files)
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
FIGURES = ("curves.png", "confusion_matrix.png")
FILES = ("config.json", "history.csv", "result.json", *FIGURES)
UNDRAWN = "figures that could not be drawn"
"""Key of result.json: names of `FIGURES` that are missing because drawing them failed."""
_OF_OTHER_COMMANDS = ("confused.png", "model.stablehlo", "model.onnx", "report.html")

Row = Mapping[str, float]


def holds_run(run: Path) -> bool:
    """Whether the directory holds any file of a run."""
    return any((run / name).exists() for name in (*FILES, CHECKPOINTS))


def clear(run: Path) -> None:
    """Delete the files of a run, and nothing else."""
    with explained(run):
        for name in (*FILES, *_OF_OTHER_COMMANDS):
            (run / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS, TENSORBOARD):
            if (run / name).exists():
                shutil.rmtree(run / name)


def clear_partial(run: Path) -> None:
    """Delete temporary files that a killed process left."""
    for name in FILES:
        clear_half_written(run, name)


def finished(run: Path, epochs: int) -> dict[str, Any] | None:
    """Return result.json if the run has its files and all its `epochs`, or stopped early; else None."""
    try:
        record = read_json(run / "result.json")
    except UserError:
        return None
    if record is None or not (record.get("epochs") == epochs or record.get("stopped_early")):
        return None
    undrawn = record.get(UNDRAWN) or ()
    return record if all(name in undrawn or (run / name).exists() for name in FILES) else None


def write_history(run: Path, rows: Sequence[Row]) -> None:
    """Write history.csv: metrics with all digits, seconds to the millisecond."""
    cells = ([int(row["epoch"]), *(row[c] for c in COLUMNS[1:-1]), f"{row['seconds']:.3f}"] for row in rows)
    write_csv(run / "history.csv", COLUMNS, cells)
