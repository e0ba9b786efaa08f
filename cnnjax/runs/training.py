"""One run from configuration to run directory: `train` loads, trains, writes and tells."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cnnjax import files, plots
from cnnjax.config import TrainConfig
from cnnjax.data import Dataset, Loaded, load, training_split
from cnnjax.data.published import published_history
from cnnjax.devices import processes
from cnnjax.devices.layouts import Layout, one_device, refuse_undivided
from cnnjax.errors import ArgumentError, UserError
from cnnjax.models import parameter_count
from cnnjax.runs import checkpoints, event_files, programs, resumption, run_directory
from cnnjax.runs.checkpoints import Checkpoint
from cnnjax.runs.following import Order, common_state
from cnnjax.runs.manifest import Manifest
from cnnjax.runs.programs import Program
from cnnjax.runs.progress import Screen
from cnnjax.runs.saver import Saver
from cnnjax.state import TrainState


def train(
    config: TrainConfig,
    run: Path,
    *,
    data_dir: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 1,
    layout: Layout | None = None,
    tensorboard: bool = False,
    announce: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train as `config` says and leave everything in the directory `run`.

    A resumed run goes on after its last whole checkpoint, and ends as if it had never been interrupted, to
    the bit, on the same machine and versions. One that is finished is left as it is; one that has not begun
    begins. Where there are several processes, this is process 0's part, and `runs.following` the others'.

    Args:
        config: of a resumed run, what it was started with; only `epochs` may differ.
        run: the run directory.
        data_dir: the directory of the four IDX files to train on instead of a download.
        overwrite: replace the run that `run` holds.
        resume: go on with the run that `run` holds.
        checkpoint_every: epochs between two checkpoints; the last epoch always has one.
        layout: the devices to train on; one unless given. Another number of them than the run began with
            changes last digits alone.
        tensorboard: also leave event files (cnnjax.runs.event_files).
        announce: called with every line that is not an epoch's.

    Returns:
        The record that is in result.json.

    Raises:
        ArgumentError: `run` holds a run already, or one with another configuration, or one with more epochs;
            or the batch is larger than the training split, or cannot be divided over the devices.
        UserError: the data cannot be had, or are not those the run began with; the directory cannot be
            written, or another process has it; no checkpoint is whole; the loss is not finite; the extra
            that `tensorboard` needs is missing.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what is finished is saved, and the message says how to go on.
    """
    began = time.perf_counter()
    if checkpoint_every < 1:
        raise ArgumentError(f"--checkpoint-every {checkpoint_every} must be at least 1")
    layout = layout or one_device()
    refuse_undivided(config.batch_size, layout)
    if resume and overwrite:
        raise ArgumentError("--resume goes on with a run and --overwrite replaces it: give one of them")
    if tensorboard:
        event_files.require()
    known = resumption.recorded(run, announce) if resume else None
    if resume and known is None:
        announce(f"{run} holds no run yet: this begins one")
    if known is not None:
        resumption.refuse_another_config(config, known[0], run)
        if (record := run_directory.finished(run, config.epochs)) is not None:
            announce(f"{run} is finished, all {config.epochs} epochs: nothing to do; --epochs N goes on to N")
            processes.from_leader(None)
            return record

    with files.claimed(run):
        run_directory.clear_torn(run)
        if run_directory.holds_run(run) and not (resume or overwrite):
            raise ArgumentError(
                f"{run} already holds a run; go on with it (--resume), replace it (--overwrite), or choose "
                "another --out"
            )
        start = checkpoints.newest(run / run_directory.CHECKPOINTS, announce) if resume else None
        if start is not None:
            resumption.refuse_another_run(config, start)
        loaded = load(config.dataset, data_dir, announce=announce)
        train_set, val_set = training_split(loaded, config.train_split)
        if config.batch_size > len(train_set.labels):
            raise ArgumentError(
                f"--batch-size {config.batch_size} is larger than the training split "
                f"({len(train_set.labels)} images)"
            )
        about = _begin(config, run, start, loaded, data_dir, layout, announce)
        log = event_files.begin(run, about.history) if tensorboard else None
        processes.from_leader(Order(config, data_dir, loaded.sha256, len(about.history)))
        saver = Saver(run / run_directory.CHECKPOINTS, checkpoint_every, announce, saved=len(about.history))
        try:
            with saver:
                program = _compiled(config, train_set, val_set, layout, announce)
                state = program.start
                if start is not None:
                    state = checkpoints.restore(start.path, program.start)
                    announce(f"resumed after epoch {saver.saved} of {config.epochs}")
                state = common_state(state, layout)
                state, rows = _epochs(program, state, config.epochs, run, saver, about, began, log)
            test = programs.evaluate_on(config, jax.device_get(state.params), loaded.test)
            _draw(config, run, rows, programs.confusion(loaded.test.labels, test.logits))
            record = {
                "validation": {"loss": rows[-1]["val_loss"], "accuracy": rows[-1]["val_accuracy"]},
                "test": {"loss": test.loss, "accuracy": test.accuracy},
                "parameters": parameter_count(state.params),
                "epochs": len(rows),
                "seconds": {
                    "compile": round(program.compile_seconds, 3),
                    "train": round(sum(row["seconds"] for row in rows), 3),
                    "total": round(about.seconds + time.perf_counter() - began, 3),
                },
                "data": {"name": loaded.name, "source": loaded.source, "sha256": loaded.sha256},
                **files.provenance(layout.size),
            }
            files.write_json(run / "result.json", record)
        except KeyboardInterrupt as stop:
            stop.args = (
                f"interrupted with {saver.saved} of {config.epochs} epochs saved; to go on: python -m cnnjax "
                f"train --resume --out {run}",
            )
            raise
        announce(f"test accuracy {test.accuracy:.4f}, test loss {test.loss:.4f}; files in {run}")
        return record


def _begin(
    config: TrainConfig,
    run: Path,
    start: Checkpoint | None,
    loaded: Loaded,
    data_dir: Path | None,
    layout: Layout,
    announce: Callable[[str], None],
) -> Manifest:
    """Make the directory that of this run; returns what is known of the run so far."""
    origin = files.provenance(layout.size)
    about = Manifest(
        config=resumption.record_of(config, data_dir),
        data={"name": loaded.name, "sha256": loaded.sha256},
        versions=origin["versions"],
        device=origin["device"],
        mask_scheme=origin["mask_scheme"],
        seconds=0.0,
        history=[],
        files={},
    )
    if start is None:
        run_directory.clear(run)
    else:
        resumption.refuse_other_data(loaded, start)
        if changed := resumption.other_circumstances(start, about):
            announce(f"the last digits may not be those of an uninterrupted run: {', '.join(changed)}")
        about = about._replace(seconds=start.manifest.seconds, history=start.manifest.history)
        run_directory.write_history(run, about.history)  # it may be torn, or an epoch ahead
        checkpoints.tidy(run / run_directory.CHECKPOINTS, about.history)
    files.write_json(run / resumption.CONFIG, about.config)
    return about


def _compiled(
    config: TrainConfig,
    train_set: Dataset,
    val_set: Dataset,
    layout: Layout,
    announce: Callable[[str], None],
) -> Program:
    kind = " test images" if config.train_split == "all" else ""
    devices = f"{layout.size} x " * (layout.size > 1) + jax.devices()[0].device_kind
    announce(
        f"{config.model}, dropout rate {config.dropout_rate:g}, {len(train_set.labels):,} images to train "
        f"and {len(val_set.labels):,}{kind} to validate on {devices}; compiling"
    )
    program = programs.build(config, train_set, val_set, layout)
    parameters = parameter_count(program.start.params)
    announce(f"{parameters:,} parameters; compiled in {program.compile_seconds:.1f} s")
    return program


def _epochs(
    program: Program,
    state: TrainState,
    count: int,
    run: Path,
    saver: Saver,
    about: Manifest,
    began: float,
    log: Callable[[run_directory.Row], None] | None,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Train until `count` epochs are done, with a row of history, a line and a checkpoint for each."""
    rows = list(about.history)
    with Screen(count, first=len(rows) + 1) as screen:
        numbers = range(len(rows), count)
        for end in programs.epochs(program, state, numbers, screen.progress if screen.live else None):
            state = end.state
            rows.append(end.row)
            finite = programs.finite(end.row)
            if finite:
                seconds = about.seconds + time.perf_counter() - began
                saver.take(state, about._replace(history=list(rows), seconds=seconds))
            run_directory.write_history(run, rows)
            if log is not None:
                log(end.row)
            screen.epoch(end.row)
            if not finite:
                good = f"the state after epoch {len(rows) - 1}" if len(rows) > 1 else "no checkpoint"
                raise UserError(
                    f"the loss of epoch {len(rows)} is not finite (loss {end.row['loss']}, val_loss "
                    f"{end.row['val_loss']}): training diverged, {good} is kept; try a lower --learning-rate"
                )
            saver.start()
    return state, rows


def _draw(config: TrainConfig, run: Path, rows: list[dict[str, float]], confusion: Any) -> None:
    title = f"{config.model} on {config.dataset}, dropout rate {config.dropout_rate:g}, seed {config.seed}"
    caption = f"batch {config.batch_size}, {config.optimizer} {config.learning_rate:g}, one run"
    published = None
    if config == TrainConfig(dropout_rate=config.dropout_rate, epochs=config.epochs, seed=config.seed):
        published = published_history(config.model, config.dataset, config.dropout_rate)
    curves = plots.training_curves(rows, published, title, caption)
    files.write_bytes(run / "curves.png", plots.png(curves))
    names = [str(digit) for digit in range(len(confusion))]
    matrix = plots.confusion_matrix(confusion, names, f"{title}, test images")
    files.write_bytes(run / "confusion_matrix.png", plots.png(matrix))
