"""Rows of the benchmark on disk: results.csv, and what of it can be kept."""

import csv
import math
from collections.abc import Collection, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from cnnjax import files
from cnnjax.errors import ArgumentError, UserError

from .protocol import Settings
from .worker import ACCURACY_EPOCH, Row

BASE = "cnnjax"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write results.csv with all digits."""
    cells = (["" if cell != cell else cell for cell in row] for row in rows)
    files.write_csv(path, Row._fields, cells)


def read_rows(path: Path) -> list[Row]:
    """Read results.csv; a missing file has no rows.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with path.open(newline="") as file:
            return [
                Row(*(_READERS[kind](cells[name]) for name, kind in Row.__annotations__.items()))
                for cells in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); delete it, or choose another --out") from None


_READERS: dict[type, Any] = {
    str: str,
    int: int,
    float: lambda cell: float(cell or math.nan),
    bool: {"True": True, "False": False}.__getitem__,
}


def grouped(rows: Iterable[Row]) -> dict[Settings, list[Row]]:
    """Group rows by setting."""
    groups: dict[Settings, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.setting, []).append(row)
    return groups


def finished(rows: Iterable[Row], entries: Collection[str], rounds: int) -> bool:
    """Return whether the rows of a launch have all entries, with round 0 and at least `rounds` more."""
    return {(row.entry, row.round) for row in rows} >= set(product(entries, range(rounds + 1)))


def kept_rows(path: Path, wanted: Collection[Settings], names: Collection[str], rounds: int) -> list[Row]:
    """Read the rows of complete launches, without those of wanted settings that lack entries or rounds.

    Timings are compared only within one launch of the processes, so it is kept whole or not at all.
    """
    kept: list[Row] = []
    for setting, of_setting in grouped(read_rows(path)).items():
        for rows in by_launch(of_setting).values():
            present = {row.entry for row in rows}
            whole = finished(rows, present | {BASE}, max(ACCURACY_EPOCH - 1, *(row.round for row in rows)))
            if whole and (setting not in wanted or finished(rows, names, rounds)):
                kept += rows
    return kept


def by_launch(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Group the rows of a setting by launch."""
    launches: dict[int, list[Row]] = {}
    for row in rows:
        launches.setdefault(row.launch, []).append(row)
    return launches


def refuse_other_versions(known: Sequence[Row], new: Sequence[Row], out: Path) -> None:
    """Raise `ArgumentError` if new rows come from other code or versions than those in `out`."""
    versions = {row.entry: row.version for row in known}
    for row in new:
        if (before := versions.get(row.entry, row.version)) != row.version:
            raise ArgumentError(
                f"{out} has results of another {row.entry} version ({before}; now {row.version}); "
                "choose another --out"
            )
