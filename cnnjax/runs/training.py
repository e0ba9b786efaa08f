"""Train one network, from its configuration to a finished run directory."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from cnnjax import files
from cnnjax.data import Dataset, Loaded, load, require_batch, require_dataset, training_split
from cnnjax.devices import processes
from cnnjax.devices.layouts import Layout, one_device, refuse_undivided, require_backend
from cnnjax.errors import ArgumentError, UserError
from cnnjax.runs import (
    building,
    checkpoints,
    early_stopping,
    event_files,
    programs,
    replacement,
    result,
    resumption,
    run_directory,
    starting,
)
from cnnjax.runs.building import NAMED, Custom
from cnnjax.runs.following import Job, broadcast_state
from cnnjax.runs.programs import Program
from cnnjax.runs.result import Finished
from cnnjax.runs.run_directory import Row
from cnnjax.runs.saver import Saver
from cnnjax.runs.screen import Screen
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import TrainState, evaluation_state
from cnnjax.stats.sentences import plural
from cnnjax.task import require_fit

OnEpoch = Callable[[dict[str, float], TrainState], None]
"""Called after every epoch with its row of history.csv and the state, which the next epoch overwrites."""


def train(
    config: TrainConfig,
    run: Path,
    *,
    custom: Custom = NAMED,
    data: Loaded | None = None,
    data_dir: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 1,
    layout: Layout | None = None,
    tensorboard: bool = False,
    on_epoch: OnEpoch | None = None,
    announce: Callable[[str], None] = print,
    verbose: bool = True,
) -> dict[str, Any]:
    """Train a network and write the run directory.

    A resumed run continues from its last intact checkpoint. On the same machine and versions it ends exactly
    as if it had never been interrupted, to the bit. A finished run is left unchanged, and a run that has not
    started yet is started. With several processes, this is the part of process 0; `runs.following` is that of
    the others.

    Args:
        config: the configuration. To resume a run, it must be the original one except for `epochs`.
        run: the run directory.
        custom: parts of the task that the configuration does not name.
        data: the data set, if it is in memory already.
        data_dir: the directory of the four IDX files to train on instead of a download.
        overwrite: replace the run in `run`.
        resume: continue the run in `run`.
        checkpoint_every: number of epochs between checkpoints; the last epoch always has one.
        layout: the devices to train on, by default one. Resuming on another number changes only last digits.
        tensorboard: also write event files (cnnjax.runs.event_files).
        on_epoch: called after every epoch that is trained here.
        announce: called with every line except those of epochs.
        verbose: show the epochs.

    Returns:
        The record in result.json.

    Raises:
        ArgumentError: `run` already holds a run, or one with another configuration, or one with more epochs;
            or the batch is larger than the training split or does not divide evenly over the devices; or the
            model does not fit the data.
        UserError: the data cannot be loaded, or differ from those that the run started with; the directory
            cannot be written, or another process uses it; all checkpoints are broken; the loss is not finite;
            TensorBoard is not installed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; finished epochs are saved, and the message says how to resume.
    """
    began = time.perf_counter()
    require_backend()
    layout = layout or one_device()
    if checkpoint_every < 1:
        raise ArgumentError(f"--checkpoint-every {checkpoint_every} must be at least 1")
    if config.stop_early and checkpoint_every > 1:
        raise ArgumentError("--stop-early needs the checkpoint of every epoch; omit --checkpoint-every")
    refuse_undivided(config.batch_size, layout)
    files.jax_settings()
    if config.custom:
        custom = building.recognised(config, custom, run)
    else:
        custom = building.imported(config.model, custom)
    config = replace(config, custom=custom.texts)
    if resume and overwrite:
        raise ArgumentError("--resume continues a run and --overwrite replaces it; use one of them")
    if tensorboard:
        event_files.require_tensorboard()
    if resume and (record := starting.finished(config, run, announce)) is not None:
        processes.from_leader(None)
        return record

    with ExitStack() as stack:
        stack.enter_context(files.claimed(run))
        files.clear_half_written(run)
        run_directory.require_no_links(run)
        start = starting.start(run, resume, overwrite, announce)
        if start is not None:
            resumption.refuse_another_run(config, custom, start)
        loaded = data or load(config.dataset, data_dir, announce=announce)
        for part, what in ((loaded.train, "training"), (loaded.test, "test")):
            require_dataset(part, what)
        train_set, val_set = _split(config, loaded)
        task = building.task(config, loaded.classes, custom=custom)
        require_fit(task, loaded.image_shape, loaded.classes, building.hparams(config, custom), config.model)
        manifest = starting.manifest(config, data_dir, loaded, layout)
        if start is not None:
            manifest = starting.resumed(manifest, start, run, loaded, announce)
        if overwrite and run_directory.holds_run(run):
            stack.enter_context(replacement.replaced(run, manifest.config, announce))
        else:
            files.write_json(run / resumption.CONFIG, manifest.config)
        require_in_place = stack.enter_context(files.watched(run))
        append_event = event_files.begin(run, manifest.history) if tensorboard else None
        processes.from_leader(Job(config, data_dir, loaded.sha256, manifest.history, files.circumstances()))
        saver = Saver(
            run / run_directory.CHECKPOINTS, checkpoint_every, manifest, began, announce, require_in_place
        )
        try:
            with saver:
                program = _compile(config, train_set, val_set, layout, custom, announce)
                state = program.start
                if start is not None:
                    state = checkpoints.restore(start.path, program.start)
                    announce(f"resumed after epoch {saver.saved} of {config.epochs}")
                state = broadcast_state(state, layout)
                rows = list(manifest.history)

                def write_epoch(row: Row) -> None:
                    require_in_place()
                    run_directory.write_history(run, rows)
                    if append_event is not None:
                        append_event(row)

                state = _epochs(program, state, config, rows, saver, write_epoch, on_epoch, verbose)
            require_in_place()
            # Where the last save was killed, nothing has tidied up since.
            checkpoints.tidy(run / run_directory.CHECKPOINTS, manifest._replace(history=rows))
            best = early_stopping.result_epoch(rows, config.stop_early)
            if best < len(rows):
                of_best = checkpoints.of_epoch(
                    run / run_directory.CHECKPOINTS, best, manifest._replace(history=rows)
                )
                state = checkpoints.restore(of_best.path, program.start)
            final = evaluation_state(*jax.device_get((state.params, state.collections)))
            done = Finished(config, custom, loaded, final, rows, program.compile_seconds, layout.size)
            record, test = result.write(run, done, saver.seconds, announce)
        except KeyboardInterrupt as stop:
            stop.args = (
                f"interrupted with {saver.saved} of {plural(config.epochs, 'epoch')} saved; to continue: "
                f"python -m cnnjax train --resume --out {run}",
            )
            raise
        replacement.finish(run, announce)
        of = f" of epoch {best}, the best," if config.stop_early else ""
        announce(f"test accuracy{of} {test.accuracy:.4f}, test loss {test.loss:.4f}; files in {run}")
        return record


def _split(config: TrainConfig, loaded: Loaded) -> tuple[Dataset, Dataset]:
    """Return the training split and the validation split."""
    train_set, val_set = training_split(loaded, config.train_split)
    require_batch(config.batch_size, len(train_set.labels))
    return train_set, val_set


def _compile(
    config: TrainConfig,
    train_set: Dataset,
    val_set: Dataset,
    layout: Layout,
    custom: Custom,
    announce: Callable[[str], None],
) -> Program:
    kind = " test images" if config.train_split == "all" else ""
    devices = f"{layout.size} x " * (layout.size > 1) + jax.devices()[0].device_kind
    announce(config.network)
    announce(
        f"{len(train_set.labels):,} images to train and {len(val_set.labels):,}{kind} to validate on "
        f"{devices}; compiling"
    )
    program = programs.build(config, train_set, val_set, layout, custom)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(program.start.params))
    announce(f"{parameters:,} parameters; compiled in {program.compile_seconds:.1f} s")
    return program


def _epochs(
    program: Program,
    state: TrainState,
    config: TrainConfig,
    rows: list[dict[str, float]],
    saver: Saver,
    write_epoch: Callable[[Row], None],
    on_epoch: OnEpoch | None,
    verbose: bool,
) -> TrainState:
    """Train the epochs that `rows` lacks; after each, write its row, a checkpoint and a line."""
    with Screen(config.epochs, first=len(rows) + 1, verbose=verbose) as screen:
        ended = early_stopping.ends(rows, config.stop_early)
        numbers = range(len(rows), len(rows) if ended else config.epochs)
        for end in programs.epochs(program, state, numbers, screen.progress if screen.live else None):
            state = end.state
            rows.append(end.row)
            finite = programs.finite(end.row)
            if finite:
                saver.stage(state, rows)
            write_epoch(end.row)
            screen.epoch(end.row)
            if not finite:
                good = f"the state after epoch {len(rows) - 1}" if len(rows) > 1 else "no checkpoint"
                raise UserError(
                    f"the loss of epoch {len(rows)} is not finite (loss {end.row['loss']}, val_loss "
                    f"{end.row['val_loss']}): training diverged, {good} is kept; try a lower --learning-rate"
                )
            saver.start()
            if on_epoch is not None:
                on_epoch(end.row, state)
            if early_stopping.ends(rows, config.stop_early):
                break
    return state
