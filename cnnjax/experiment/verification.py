"""Whether the files of an experiment are whole and agree with each other."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.errors import UserError, one_line
from cnnjax.experiment.predictions import DAMAGED, PREDICTIONS, prediction_file, predictions_in
from cnnjax.experiment.results import PROTOCOL, RESULTS
from cnnjax.experiment.rows import CHECKSUMS, Cell, Row, named, read_checksums, read_rows
from cnnjax.files import read_bytes, read_json
from cnnjax.files.problem import Problem
from cnnjax.files.records import CHECKSUM, checksum

FILES = ("protocol.json", "results.csv", "summary.json")
ROUNDING = 1e-6
"""Largest difference of a mean in summary.json from that of the rows; results.csv has all digits."""


def holds_experiment(out: Path) -> bool:
    """Whether the directory holds any file of an experiment."""
    return any((out / name).exists() for name in FILES)


def problems(out: Path) -> list[Problem]:
    """Return what is wrong with the files of an experiment, and of the data sets or networks in it."""
    inside = [path.parent for path in sorted(out.glob("*/protocol.json"))]
    # Beside experiments, a table without protocol.json is one of all their rows.
    own = [out] * ((out / PROTOCOL).exists() or not inside)
    found = [problem for each in (*own, *inside) for problem in _of_rows(each, str(each.relative_to(out)))]
    try:
        summary = read_json(out / "summary.json") or {}
    except UserError as error:
        return [*found, Problem(one_line(error), heals=True)]
    return found + list(_of_summary(out, summary))


def _of_rows(out: Path, where: str) -> Iterator[Problem]:
    """Check protocol.json, results.csv, checksums.csv and the predictions of one directory."""
    of = "" if where == "." else f"{where}/"
    try:
        protocol = read_json(out / PROTOCOL)
        # Rows are written last, so that those of an experiment at work are not missed.
        predicted = sorted((out / PREDICTIONS).glob("*, seed *.npz"))
        written, rows = read_checksums(out / CHECKSUMS), rows_of(out)
    except UserError as error:
        yield Problem(one_line(error), heals=False)
        return
    if protocol is None:
        if rows or written or predicted:
            yield Problem(f"{of}protocol.json is missing", heals=False)
        return
    if protocol.get(CHECKSUM) not in (None, checksum(protocol)):
        yield Problem(f"{of}protocol.json was changed after it was written", heals=False)
    epochs, last, lacking = protocol.get("epochs"), dict[tuple[str, int], int](), set(written) - rows.keys()
    for arm, seed, epoch in sorted(rows):
        if f"arm {arm}" not in protocol:
            yield Problem(f"{of}results.csv has the arm {arm}, and protocol.json has not", heals=False)
            return
        if isinstance(epochs, int) and not 1 <= epoch <= epochs:
            yield Problem(f"{of}results.csv has an epoch {epoch} of {arm}, seed {seed}", heals=False)
            return
        if epoch != (follows := last.get((arm, seed), 0) + 1):
            lacking.add((arm, seed, follows))
        last[arm, seed] = epoch
    for path in predicted:  # after the last epoch
        arm, _, seed = path.stem.rpartition(", seed ")
        if isinstance(epochs, int) and seed.isdecimal() and f"arm {arm}" in protocol:
            lacking |= {(arm, int(seed), epochs)} - rows.keys()
    if lacking:
        yield Problem(f"{of}results.csv lacks the row of {named(sorted(lacking))}", heals=True)
    for member, epoch in last.items():
        path = prediction_file(out, *member)
        # A version that wrote no checksums may not have written predictions either.
        if epoch == epochs and (path.exists() or written) and (reason := _unreadable(path)):
            yield Problem(f"{of}{path.relative_to(out)} {reason}", heals=True)


def rows_of(out: Path) -> dict[Cell, Row]:
    """Read the rows of a directory; none of a table that is not of arms, seeds and epochs.

    Raises:
        UserError: the table is damaged.
    """
    path, sums = out / RESULTS, out / CHECKSUMS
    ours = sums.exists() or (read_bytes(path) or b"").startswith(b"arm,seed,epoch")
    return read_rows(path) if ours else {}


def _unreadable(path: Path) -> str:
    """Return what is wrong with predictions; "" if they can be read."""
    if not path.exists():
        return "is missing"
    try:
        predictions_in(path)
    except DAMAGED as error:
        return f"cannot be read ({one_line(error)})"
    return ""


def _of_summary(out: Path, record: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Compare the means in summary.json, at any depth, with those of the rows."""
    for name, value in record.items():
        if isinstance(value, dict) and isinstance(value.get("arms"), list):
            try:
                rows = rows_of(out / keys[0] if keys and (out / keys[0]).is_dir() else out)
            except UserError:
                return  # already found
            for arm in value["arms"]:
                if (wrong := _disagrees(rows, name, arm)) is not None:
                    heading = " ".join((*keys, name))
                    yield Problem(
                        f"summary.json disagrees with results.csv in {heading} of {wrong}", heals=True
                    )
        elif isinstance(value, dict):
            yield from _of_summary(out, value, (*keys, name))


def _disagrees(rows: Mapping[Cell, Row], metric: str, arm: Any) -> str | None:
    """Return the name of an arm whose mean is not that of its rows; None if it is, or cannot be compared."""
    if not isinstance(arm, dict) or not {"name", "n", "mean"} <= arm.keys():
        return None
    last = max((epoch for name, _, epoch in rows if name == arm["name"]), default=0)
    final = [row for (name, _, epoch), row in rows.items() if (name, epoch) == (arm["name"], last)]
    finite = [value for row in final if math.isfinite(value := row.get(metric, math.nan))]
    # A summary may be of fewer seeds than the rows, of which it then does not say which.
    if not final or not isinstance(arm["n"], int) or arm["n"] < len(finite):
        return None
    mean = float(np.mean(finite)) if finite else None
    same = arm["mean"] == mean or (
        mean is not None and isinstance(arm["mean"], float) and abs(arm["mean"] - mean) <= ROUNDING
    )
    return None if same and arm["n"] == len(finite) else str(arm["name"])
