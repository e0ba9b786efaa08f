"""The result of a run: the test of its network, result.json, the figures and the model card."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnjax import files, plots
from cnnjax.data import Loaded
from cnnjax.data.published import published_history
from cnnjax.errors import UserError
from cnnjax.files.records import CHECKSUM, checksum
from cnnjax.runs import building, card, early_stopping, programs, run_directory
from cnnjax.runs.building import Custom
from cnnjax.runs.programs import Evaluation
from cnnjax.runs.train_config import TrainConfig
from cnnjax.shapes import Int
from cnnjax.state import TrainState

RESULT = "result.json"
FIGURES = "figures"
"""Key of result.json: SHA-256 of the figures by name."""
MODEL_CARD = "model_card"
"""Key of result.json: SHA-256 of the model card. Results of earlier versions lack it."""


class Finished(NamedTuple):
    """A run after its last epoch."""

    config: TrainConfig
    custom: Custom
    loaded: Loaded
    state: TrainState  # on the host, to evaluate
    rows: list[dict[str, float]]  # of history.csv
    compile_seconds: float
    devices: int


def write(
    run: Path, finished: Finished, seconds: Callable[[], float], announce: Callable[[str], None]
) -> tuple[dict[str, Any], Evaluation]:
    """Test the network, write result.json, and only then draw the figures and write the model card.

    Args:
        run: the run directory.
        finished: what it holds.
        seconds: returns those since the start of the run.
        announce: called with a line about each figure that cannot be drawn.

    Returns:
        The record in result.json, and the evaluation of the test images.
    """
    config, loaded = finished.config, finished.loaded
    task = building.task(config, loaded.classes, custom=finished.custom)
    test = programs.evaluate_on(task, finished.state, building.hparams(config, finished.custom), loaded.test)
    record = _record(finished, test, seconds())
    files.write_json(run / RESULT, record)
    confusion = programs.confusion(loaded.test.labels, test.logits)
    record |= _draw(run, finished, confusion, announce)
    content = card.text(config, loaded, record).encode()
    files.write_bytes(run / card.CARD, content)
    record[MODEL_CARD] = hashlib.sha256(content).hexdigest()
    record[CHECKSUM] = checksum(record)
    files.write_json(run / RESULT, record)
    return record, test


def read(run: Path) -> dict[str, Any] | None:
    """Return result.json; None if there is none.

    Without `CHECKSUM`, it is of an earlier version, or the figures were not drawn yet.

    Raises:
        UserError: it is damaged, or was changed after it was written.
    """
    record = files.read_json(run / RESULT)
    if record is not None and record.get(CHECKSUM, checksum(record)) != checksum(record):
        raise UserError(
            f"{run / RESULT} has changed since it was written; python -m cnnjax train --resume --out {run} "
            "writes it again"
        )
    return record


def whole(run: Path) -> dict[str, Any] | None:
    """Return result.json if it is there with its checksum and unchanged; else None."""
    try:
        record = read(run)
    except UserError:
        return None
    return record if record is not None and CHECKSUM in record else None


def _record(finished: Finished, test: Evaluation, seconds: float) -> dict[str, Any]:
    """Return the content of result.json before the figures are drawn."""
    config, loaded, rows = finished.config, finished.loaded, finished.rows
    epoch = early_stopping.result_epoch(rows, config.stop_early)
    return {
        "validation": {metric: rows[epoch - 1][f"val_{metric}"] for metric in ("loss", "accuracy")},
        "test": {"loss": test.loss, "accuracy": test.accuracy},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(finished.state.params)),
        "epochs": len(rows),
        "epoch": epoch,  # whose network this is
        "stopped_early": early_stopping.ends(rows, config.stop_early),
        "seconds": {
            "compile": round(finished.compile_seconds, 3),
            "train": round(sum(row["seconds"] for row in rows), 3),
            "total": round(seconds, 3),
        },
        "data": {"name": loaded.name, "source": loaded.source, "sha256": loaded.sha256},
        **files.provenance(finished.devices),
    }


def _draw(
    run: Path, finished: Finished, confusion: Int[np.ndarray, "c c"], announce: Callable[[str], None]
) -> dict[str, Any]:
    """Write the figures; return their digests, and the names of those that cannot be drawn."""
    config, loaded, rows = finished.config, finished.loaded, finished.rows
    title = f"{config.model} on {loaded.name}{config.network.removeprefix(config.model)}, seed {config.seed}"
    caption = f"batch {config.batch_size}, {config.optimization}, one run"
    published = None
    if config == TrainConfig(dropout_rate=config.dropout_rate, epochs=config.epochs, seed=config.seed):
        published = published_history(config.model, config.dataset, config.dropout_rate)
    curves = partial(plots.training_curves, rows, published, title, caption)
    matrix = partial(plots.confusion_matrix, confusion, loaded.class_names, f"{title}, test images")
    drawn: dict[str, str] = {}
    undrawn = []
    for name, make in zip(run_directory.FIGURES, (curves, matrix), strict=True):
        png = plots.attempt(name, make, announce)
        if png is not None:
            files.write_bytes(run / name, png)
            drawn[name] = hashlib.sha256(png).hexdigest()
        else:
            undrawn.append(name)
            (run / name).unlink(missing_ok=True)  # of fewer epochs
    return {FIGURES: drawn} | ({run_directory.UNDRAWN: undrawn} if undrawn else {})
