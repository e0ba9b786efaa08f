"""One run from configuration to run directory: `train` loads, trains, writes and tells."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from cnnjax import artifacts, checkpoints, plots, programs
from cnnjax.config import TrainConfig
from cnnjax.data import load, split
from cnnjax.errors import ArgumentError
from cnnjax.models import parameter_count
from cnnjax.published import published_history
from cnnjax.view import Screen


def train(
    config: TrainConfig,
    run: Path,
    *,
    data_dir: Path | None = None,
    overwrite: bool = False,
    announce: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train as `config` says and leave everything in the directory `run`.

    Returns:
        The record that is in result.json.

    Raises:
        ArgumentError: `run` holds a run already, or the batch is larger than the training split.
        UserError: the data cannot be had, or the directory cannot be written.
    """
    began = time.perf_counter()
    loaded = load(config.dataset, data_dir, announce=announce)
    train_set, val_set = split(loaded.train)
    if config.batch_size > len(train_set.labels):
        raise ArgumentError(
            f"--batch-size {config.batch_size} is larger than the training split "
            f"({len(train_set.labels)} images)"
        )
    artifacts.create(run, overwrite=overwrite)
    artifacts.write_json(run / "config.json", asdict(config))
    program = programs.build(config, train_set, val_set)
    announce(
        f"{config.model}: {parameter_count(program.start.params):,} parameters, dropout rate "
        f"{config.dropout_rate:g}, {len(train_set.labels):,} images to train and "
        f"{len(val_set.labels):,} to validate on {jax.devices()[0].device_kind}; "
        f"compiled in {program.compile_seconds:.1f} s"
    )
    state, rows = program.start, []
    with Screen(config.epochs) as screen:
        for end in programs.epochs(program, config.epochs, screen.progress if screen.live else None):
            state = end.state
            rows.append(end.row)
            artifacts.write_history(run, rows)
            screen.epoch(end.row)
    checkpoints.save(run / "checkpoints" / f"epoch-{config.epochs}", state)
    test = programs.evaluate_on(config, state.params, loaded.test)
    confusion = programs.confusion(loaded.test.labels, test.logits)
    record = {
        "validation": {"loss": rows[-1]["val_loss"], "accuracy": rows[-1]["val_accuracy"]},
        "test": {"loss": test.loss, "accuracy": test.accuracy},
        "parameters": parameter_count(state.params),
        "epochs": len(rows),
        "seconds": {
            "compile": round(program.compile_seconds, 3),
            "train": round(sum(row["seconds"] for row in rows), 3),
            "total": round(time.perf_counter() - began, 3),
        },
        "data": {"name": loaded.name, "source": loaded.source, "sha256": loaded.sha256},
        **artifacts.provenance(),
    }
    _draw(config, run, rows, confusion)
    artifacts.write_json(run / "result.json", record)
    announce(f"test accuracy {test.accuracy:.4f}, test loss {test.loss:.4f}; files in {run}")
    return record


def _draw(config: TrainConfig, run: Path, rows: list[dict[str, float]], confusion: Any) -> None:
    title = f"{config.model} on {config.dataset}, dropout rate {config.dropout_rate:g}, seed {config.seed}"
    caption = f"batch {config.batch_size}, Adam {config.learning_rate:g}, one run"
    published = published_history(config.model, config.dataset, config.dropout_rate)
    curves = plots.training_curves(rows, published, title, caption)
    artifacts.write_bytes(run / "curves.png", plots.png(curves))
    names = [str(digit) for digit in range(len(confusion))]
    matrix = plots.confusion_matrix(confusion, names, f"{title}, test images")
    artifacts.write_bytes(run / "confusion_matrix.png", plots.png(matrix))
