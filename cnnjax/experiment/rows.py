"""The table of an experiment, results.csv: a row per arm, seed and epoch, each with a checksum."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np

from cnnjax.errors import UserError
from cnnjax.experiment import environments
from cnnjax.files import read_csv, write_csv
from cnnjax.shapes import Float

METRICS = tuple(
    f"{images}{metric}" for images in ("", "train_", "val_", "test_") for metric in ("loss", "accuracy")
)
"""`loss` and `accuracy` come from the training steps, with dropout; `train_*` from training images without
dropout; `test_*`, and the columns that an experiment's probes add, are measured after the last epoch only."""
CHECKSUMS = "checksums.csv"
"""Beside results.csv: the checksum of each row. Directories of earlier versions lack it."""

T = TypeVar("T")
Row = dict[str, float]
Cell = tuple[str, int, int]  # arm, seed, epoch
KEYS = "arm", "seed", "epoch"


def read_rows(path: Path) -> dict[Cell, Row]:
    """Read the rows of a results.csv, and compare each with its checksum.

    Raises:
        UserError: a file cannot be read or is damaged, or a row is not as it was written, or its checksum is
            missing.
    """
    rows, sums = _read(path, float), path.with_name(CHECKSUMS)
    if not sums.exists():
        # Earlier versions wrote neither of the two files.
        if rows and path.with_name(environments.FILE).exists():
            raise UserError(f"{sums} is missing; restore it from a copy, or choose another --out")
        return rows
    written = read_checksums(sums)
    changed = [cell for cell, row in rows.items() if _checksum(row) != written.get(cell)]
    if changed:
        raise UserError(
            f"{path} was changed after it was written, in the row of {named(changed)}; restore it from a "
            "copy, or remove what was changed, to compute it again"
        )
    return rows


def read_checksums(path: Path) -> dict[Cell, str]:
    """Read a checksums.csv; {} if there is none.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    return {cell: row.get("sha256", "") for cell, row in _read(path, str).items()}


def named(cells: Sequence[Cell]) -> str:
    """Name the first row: "rate 0, seed 3, epoch 2 and 1 more"."""
    arm, seed, epoch = cells[0]
    return f"{arm}, seed {seed}, epoch {epoch}{f' and {len(cells) - 1} more' if len(cells) > 1 else ''}"


def write_rows(path: Path, rows: Mapping[Cell, Row]) -> None:
    """Write a results.csv, sorted by arm, seed and epoch, after the checksums of its rows."""
    metrics, cells = columns(rows), sorted(rows)
    # First, so that no row is ever without; a checksum without a row is of one that is still to come.
    sums = ([*cell, _checksum(rows[cell])] for cell in cells)
    write_csv(path.with_name(CHECKSUMS), (*KEYS, "sha256"), sums)
    # An empty cell was not measured; NaN means that the run diverged.
    table = ([*cell, *(rows[cell].get(name, "") for name in metrics)] for cell in cells)
    write_csv(path, (*KEYS, *metrics), table)


def columns(rows: Mapping[Cell, Row]) -> tuple[str, ...]:
    """Return the metrics: those of every experiment, then those of the probes."""
    measured = {name for row in rows.values() for name in row}
    return *METRICS, *sorted(measured - set(METRICS))


def values_of(
    rows: Mapping[Cell, Row], metric: str, arms: Sequence[str], seeds: Sequence[int], epochs: int
) -> Float[np.ndarray, "arms seeds epochs"]:
    """Return a metric, NaN where there is no such row or value."""
    shape = len(arms), len(seeds), epochs
    cells = product(arms, seeds, range(1, epochs + 1))
    return np.array([rows.get(cell, {}).get(metric, float("nan")) for cell in cells]).reshape(shape)


def _read(path: Path, value: Callable[[str], T]) -> dict[Cell, dict[str, T]]:
    """Read the cells of a table that are not empty."""
    table = {}
    try:
        for row in read_csv(path) or ():
            cell = row.pop("arm"), int(row.pop("seed")), int(row.pop("epoch"))
            table[cell] = {name: value(text) for name, text in row.items() if text}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); choose another --out") from None
    return table


def _checksum(row: Row) -> str:
    """Return 16 digits of the SHA-256 of a row, whatever other columns the table has."""
    return hashlib.sha256(json.dumps(sorted(row.items())).encode()).hexdigest()[:16]
