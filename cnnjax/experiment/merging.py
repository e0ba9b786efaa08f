"""Results of one experiment that several machines computed, joined into one directory."""

import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.errors import ArgumentError
from cnnjax.experiment import environments
from cnnjax.experiment.plans import Look, Stated, broken, read_looks, read_plans, write_looks, write_plans
from cnnjax.experiment.predictions import read_prediction
from cnnjax.experiment.results import PROTOCOL, RESULTS, Store, different, read_times, write_times
from cnnjax.experiment.rows import Cell, Row, read_rows
from cnnjax.files import explained, make_directory, read_json
from cnnjax.files.misspelt import did_you_mean
from cnnjax.stats.confusion import Predictions
from cnnjax.stats.plan import Plan


class Part(NamedTuple):
    """What one directory holds."""

    path: Path
    protocol: dict[str, Any]
    rows: dict[Cell, Row]
    plans: tuple[Stated, ...]
    looks: list[Look]


def merge(directories: Sequence[Path], out: Path) -> dict[Cell, Row]:
    """Join results that were computed in several directories, of other seeds or arms; return all rows.

    `out` is then as if one run had computed them: `run` goes on in it, with the joined plan. What is in
    training is not taken along. Directories of one experiment have one protocol and one plan, and where they
    hold the same rows, these are equal. `out` appears whole or not at all.

    Raises:
        ArgumentError: there are fewer than two directories, or `out` is not empty, or a directory holds no
            experiment, or another one than the first; or the seeds have a gap.
        UserError: a file cannot be read or written, or is damaged.
    """
    if len(directories) < 2:
        raise ArgumentError("merge needs two directories or more")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArgumentError(f"--out {out} is not empty; choose another directory")
    parts = [_read(path) for path in directories]
    first, protocol = parts[0], dict(parts[0].protocol)
    rows: dict[Cell, Row] = {}
    source: dict[tuple[str, int], Path] = {}
    for part in parts:
        if names := different(protocol, part.protocol):
            raise ArgumentError(
                f"{part.path} holds another experiment than {first.path} (different: {', '.join(names)})"
            )
        protocol |= part.protocol
        for cell, row in part.rows.items():
            # As texts, because NaN differs from itself.
            if cell in rows and repr(sorted(rows[cell].items())) != repr(sorted(row.items())):
                raise ArgumentError(
                    f"{part.path} and {source[cell[:2]]} differ in {cell[0]}, seed {cell[1]}, epoch {cell[2]}"
                )
            rows[cell] = row
            source.setdefault(cell[:2], part.path)
    plans = _joined(parts)
    predictions = _predictions(parts)
    temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        make_directory(temporary)
        store = Store(temporary, protocol)
        store.rows = rows
        for (arm, seed), said in predictions.items():
            store.keep(arm, seed, said)
        write_looks(temporary, sorted({look for part in parts for look in part.looks}))
        if times := [each for part in parts for each in read_times(part.path)]:
            write_times(temporary, times)
        if known := [each for part in parts for each in environments.read(part.path)]:
            environments.write(temporary, known)
        if plans:
            write_plans(temporary, plans)
        store.write()
        with explained(out):
            os.replace(temporary, out)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(temporary)
        raise
    return rows


def _read(path: Path) -> Part:
    protocol = read_json(path / PROTOCOL)
    if protocol is None or not (path / RESULTS).exists():
        inside = sorted(each.parent.name for each in path.glob(f"*/{PROTOCOL}"))
        near = did_you_mean(path, lambda each: (each / PROTOCOL).exists())
        advice = f"; there is one in {path / inside[0]}" if inside else near
        raise ArgumentError(f"{path} holds no results of an experiment{advice}")
    rows = read_rows(path / RESULTS)
    if not rows:
        raise ArgumentError(f"{path} holds no rows; leave it out")
    return Part(path, protocol, rows, read_plans(path), read_looks(path))


def _joined(parts: Sequence[Part]) -> list[Stated]:
    """Return all plans, and as the last one that of all seeds; none if no directory has one."""
    first = next((part for part in parts if part.plans), None)
    if first is None:
        return []
    plan, ranges, late, times = first.plans[-1].plan, list[range](), 0, list[str]()
    family = plan.family
    for part in parts:
        seeds = sorted({seed for _, seed, _ in part.rows})
        last = Stated(Plan(first_seed=seeds[0], seeds=seeds[-1] + 1 - seeds[0]), "", len(part.rows))
        last = part.plans[-1] if part.plans else last
        if part.plans and (names := broken(plan, last.plan)):
            raise ArgumentError(
                f"{part.path} has another plan than {first.path} (different: {', '.join(names)})"
            )
        family += tuple(arm for arm in last.plan.family if arm not in family)
        ranges.append(last.plan.numbers)
        late += last.rows
        times.append(last.time)
    ranges.sort(key=lambda of: of.start)
    start = stop = ranges[0].start
    for of in ranges:
        if of.start > stop:
            raise ArgumentError(f"the seeds {stop} to {of.start - 1} are in none of the directories")
        stop = max(stop, of.stop)
    whole = plan._replace(family=family, first_seed=start, seeds=stop - start)
    if whole.looks and whole.looks[-1] != whole.seeds:
        raise ArgumentError(f"the plan has looks at {whole.looks[-1]} seeds, and these are {whole.seeds}")
    stated = sorted({each for part in parts for each in part.plans}, key=lambda each: each.time)
    others = [each for each in stated if each.plan != whole]
    return [*others, Stated(whole, max(times), late)]


def _predictions(parts: Sequence[Part]) -> dict[tuple[str, int], Predictions]:
    """Read the predictions of all networks.

    Raises:
        ArgumentError: two directories have other predictions of one network.
    """
    found: dict[tuple[str, int], Predictions] = {}
    for part in parts:
        for member in sorted({cell[:2] for cell in part.rows}):
            said = read_prediction(part.path, *member)
            if said is None:
                continue
            if member in found and not all(map(np.array_equal, found[member], said)):
                raise ArgumentError(f"{part.path} has other predictions of {member[0]}, seed {member[1]}")
            found[member] = said
    return found
