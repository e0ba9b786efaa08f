"""Whether the files of a run are whole, and are those of one run."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnjax.errors import UserError
from cnnjax.files.problem import Problem, wrong_and_advice
from cnnjax.files.records import CHECKSUM
from cnnjax.runs import arrays, checkpoints, early_stopping, manifest, result, resumption, run_directory
from cnnjax.runs.card import CARD
from cnnjax.runs.checkpoints import Checkpoint
from cnnjax.runs.resumption import Recorded
from cnnjax.runs.run_directory import CHECKPOINTS
from cnnjax.stats.sentences import plural


def holds_run(run: Path) -> bool:
    """Whether the directory holds what no experiment has."""
    return (run / CHECKPOINTS).exists() or (run / resumption.CONFIG).exists()


def finished(run: Path, epochs: int) -> dict[str, Any] | None:
    """Return result.json if a run has all its `epochs`, or stopped early, and nothing heals; else None."""
    record = result.whole(run)
    if record is None or not (record["epochs"] == epochs or record["stopped_early"]):
        return None
    return None if any(problem.heals for problem in problems(run)) else record


def progress(run: Path) -> str:
    """Say how far a run that is whole has come: "2 of 4 epochs", or "finished after 4 epochs"."""
    record = resumption.recorded(run, lambda _: None)
    assert record is not None
    done = len(record.checkpoint.manifest.history) if record.checkpoint else 0
    if finished(run, done) is not None:
        return f"finished after {plural(done, 'epoch')}"
    return f"{done} of {plural(record.config.epochs, 'epoch')}; train --resume continues"


def problems(run: Path) -> list[Problem]:
    """Return what is wrong with the files of a run; an unfinished one may be whole.

    Raises:
        UserError: the directory holds no run.
    """
    try:
        record = resumption.recorded(run, lambda _: None)
    except UserError as error:
        return [Problem(str(error), heals=False)]
    if record is None:
        raise UserError(f"{run} holds no run; name the --out directory of a train command")
    found: list[Problem] = []
    if record.checkpoint is not None:
        found += _of_config(run / resumption.CONFIG)
        found += _of_checkpoints(run, record, record.checkpoint)
        found += _of_history(run, record.checkpoint, result.whole(run))
    return found + list(_of_result(run, record))


def _of_config(path: Path) -> Iterator[Problem]:
    try:
        if resumption.read(path) is None:
            yield Problem("config.json is missing", heals=True)
    except UserError as error:
        yield Problem(wrong_and_advice(str(error))[0], heals=True)


def _of_checkpoints(run: Path, recorded: Recorded, newest: Checkpoint) -> Iterator[Problem]:
    """Check all checkpoints but the newest whole one, which has been checked; those after it are broken."""
    directory, history, config = run / CHECKPOINTS, newest.manifest.history, recorded.config
    last = len(history) if early_stopping.ends(history, config.stop_early) else config.epochs
    for epoch in sorted(checkpoints.epochs(directory)):
        path = directory / f"epoch-{epoch}"
        if path == newest.path:
            continue
        try:
            if not manifest.same_run(manifest.verify(path, epoch), newest.manifest):
                yield Problem(f"{path.name} belongs to another run than {newest.path.name}", heals=False)
        except (manifest.Broken, OSError) as error:
            text = f"broken checkpoint {path.name} ({arrays.reason(error)})"
            if epoch > last:  # no training replaces it
                text = f"{text}; move it away"
            yield Problem(text, heals=len(history) < epoch <= last)


def _of_history(run: Path, newest: Checkpoint, record: dict[str, Any] | None) -> Iterator[Problem]:
    expected = run_directory.history_text(newest.manifest.history)
    path = run / "history.csv"
    try:
        found = path.read_bytes() if path.is_file() else None
    except OSError as error:
        yield Problem(f"history.csv cannot be read ({error.strerror})", heals=False)
        return
    if found is None:
        yield Problem("history.csv is missing", heals=True)
    # Epochs without a checkpoint may follow, unless the run has finished.
    elif not found.startswith(expected) or (
        record is not None and record["epochs"] == len(newest.manifest.history) and found != expected
    ):
        yield Problem(f"history.csv is not that of {newest.path.name}", heals=True)


def _of_result(run: Path, recorded: Recorded) -> Iterator[Problem]:
    try:
        record = result.read(run)
    except UserError:
        yield Problem("result.json has changed since it was written", heals=recorded.checkpoint is not None)
        return
    if record is None or CHECKSUM not in record:
        return
    history = recorded.checkpoint.manifest.history if recorded.checkpoint else []
    epoch = early_stopping.result_epoch(history, recorded.config.stop_early) if history else 0
    if not history or (len(history) == record["epochs"] and epoch != record["epoch"]):
        yield Problem("result.json is there without the checkpoint that it is of", heals=True)
    elif len(history) < record["epochs"]:
        yield Problem(
            f"result.json is of {record['epochs']} epochs, and the last whole checkpoint of {len(history)}",
            heals=True,
        )
    elif len(history) == record["epochs"]:
        row = history[epoch - 1]
        was = {metric: row[f"val_{metric}"] for metric in ("loss", "accuracy")}
        if record["validation"] != was:
            yield Problem(f"result.json is of another run than epoch-{epoch}", heals=True)
        if epoch not in checkpoints.epochs(run / CHECKPOINTS):
            yield Problem(f"epoch-{epoch}, the best, is missing", heals=False)
    outputs = dict(record[result.FIGURES])
    if result.MODEL_CARD in record:
        outputs[CARD] = record[result.MODEL_CARD]
    for name, digest in outputs.items():
        path = run / name
        if not path.is_file():
            yield Problem(f"{name} is missing", heals=True)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield Problem(f"{name} has changed since it was written", heals=True)
