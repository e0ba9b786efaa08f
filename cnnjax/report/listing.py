"""The runs and experiments under a directory, as far as their files prove it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cnnjax import files
from cnnjax.errors import UserError
from cnnjax.experiment import verification as of_experiments
from cnnjax.files.records import CHECKSUM
from cnnjax.runs import result, resumption
from cnnjax.runs import verification as of_runs
from cnnjax.stats.sentences import plural

DEEPEST = 4
"""Directories below the one that is listed."""


class Listed(NamedTuple):
    """A run or an experiment; None is not known. An experiment has accuracies for every arm, so none here."""

    directory: Path
    kind: str  # run or experiment
    model: str | None  # of an experiment, its arms and seeds
    dataset: str | None
    epochs: int  # that are done, over all networks
    of_epochs: int | None  # that were asked for
    val_accuracy: float | None
    test_accuracy: float | None
    state: str  # finished, interrupted, in progress or damaged


def listed(root: Path) -> Iterator[Listed]:
    """Iterate over the runs and experiments under a directory, by name."""
    for path in _found(root):
        yield _run(path) if of_runs.holds_run(path) else _experiment(path)


def _found(root: Path) -> Iterator[Path]:
    if of_runs.holds_run(root) or of_experiments.holds_experiment(root):
        yield root
        return
    for at, inside, _ in os.walk(root):
        here = Path(at)
        # Hidden directories are environments, caches, and runs that were replaced.
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in inside.copy():
            if of_runs.holds_run(here / name) or of_experiments.holds_experiment(here / name):
                yield here / name
                inside.remove(name)  # what is in it is part of it
        if len(here.relative_to(root).parts) >= DEEPEST:
            inside.clear()


def _run(path: Path) -> Listed:
    found = Listed(path, "run", None, None, 0, None, None, None, "damaged")
    try:
        recorded = resumption.recorded(path, lambda _: None)
        whole = recorded is not None and not of_runs.problems(path)
        record = result.read(path)
    except UserError:
        return found
    if recorded is None:
        return found
    config, history = recorded.config, recorded.checkpoint.manifest.history if recorded.checkpoint else []
    found = found._replace(
        model=config.model, dataset=config.dataset, epochs=len(history), of_epochs=config.epochs
    )
    if files.busy(path):
        return found._replace(state="in progress")
    if not whole:
        return found
    if record is None or CHECKSUM not in record or record["epochs"] < len(history):
        val = history[-1]["val_accuracy"] if history else None
        return found._replace(val_accuracy=val, state="interrupted")
    val, test = (record[images]["accuracy"] for images in ("validation", "test"))
    ended = len(history) == config.epochs or record["stopped_early"]
    state = "finished" if ended else "interrupted"
    return found._replace(val_accuracy=val, test_accuracy=test, state=state)


def _experiment(path: Path) -> Listed:
    found = Listed(path, "experiment", None, None, 0, None, None, None, "damaged")
    try:
        protocol = files.read_json(path / "protocol.json") or {}
        rows = of_experiments.rows_of(path)
    except UserError:
        return found
    arms = {name.removeprefix("arm ") for name in protocol if name.startswith("arm ")}
    arms |= {arm for arm, _, _ in rows}
    seeds = {seed for _, seed, _ in rows}
    asked = len(arms) * len(seeds) * protocol["epochs"] if "epochs" in protocol and rows else None
    if arms:
        found = found._replace(model=f"{plural(len(arms), 'arm')}, n={len(seeds)}")
    found = found._replace(dataset=protocol.get("dataset"), epochs=len(rows), of_epochs=asked)
    if files.busy(path):
        return found._replace(state="in progress")
    if of_experiments.problems(path):
        return found
    ended = (path / "summary.json").exists() and (asked is None or len(rows) >= asked)
    return found._replace(state="finished" if ended else "interrupted")
