"""Where a run starts: at its first epoch, or after its last checkpoint, unless it has finished."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnjax import files
from cnnjax.data import Loaded
from cnnjax.devices.layouts import Layout
from cnnjax.errors import ArgumentError
from cnnjax.runs import replacement, resumption, run_directory, verification
from cnnjax.runs.checkpoints import Checkpoint
from cnnjax.runs.manifest import Manifest
from cnnjax.runs.train_config import TrainConfig
from cnnjax.stats.sentences import plural


def finished(config: TrainConfig, run: Path, announce: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the record in result.json if the run to be resumed is whole and needs no more training."""
    recorded = resumption.recorded(run, lambda _: None)  # damage is announced when the run goes on
    if recorded is None:
        announce(f"{run} holds no run yet: starting one")
        return None
    resumption.refuse_another_config(config, recorded.config, run)
    record = verification.finished(run, config.epochs)
    if record is not None:
        if replacement.pending(run) or (run / ".lock").exists():  # left by a process that was killed
            with files.claimed(run):
                files.clear_half_written(run)
                replacement.finish(run, announce)
        more = "--epochs N continues to N" if record["epochs"] == config.epochs else "it stopped early"
        announce(f"{run} has finished after {plural(record['epochs'], 'epoch')}: nothing to do; {more}")
    return record


def start(run: Path, resume: bool, overwrite: bool, announce: Callable[[str], None]) -> Checkpoint | None:
    """Return the checkpoint from which to go on; None to begin at epoch 1.

    Raises:
        ArgumentError: the directory holds a run that is not to be resumed or replaced, or parts of one that
            would be overwritten.
    """
    if overwrite or not run_directory.holds_run(run):
        return None
    if not resume:
        raise ArgumentError(
            f"{run} already holds a run; continue it (--resume), replace it (--overwrite), or choose another "
            "--out"
        )
    recorded = resumption.recorded(run, announce)
    if recorded is None:
        run_directory.require_own(run)
        raise ArgumentError(f"{run} holds parts of a run and no configuration; choose another --out")
    return recorded.checkpoint


def manifest(config: TrainConfig, data_dir: Path | None, loaded: Loaded, layout: Layout) -> Manifest:
    """Return the manifest of a run before its first epoch."""
    provenance = files.provenance(layout.size)
    return Manifest(
        config=resumption.config_record(config, data_dir),
        data={
            "name": loaded.name,
            "sha256": loaded.sha256,
            "image_shape": list(loaded.image_shape),
            "class_names": list(loaded.class_names),
        },
        versions=provenance["versions"],
        device=provenance["device"],
        mask_scheme=provenance["mask_scheme"],
        seconds=0.0,
        history=[],
        files={},
        jax_settings=files.jax_settings(),
    )


def resumed(
    manifest: Manifest, start: Checkpoint, run: Path, loaded: Loaded, announce: Callable[[str], None]
) -> Manifest:
    """Return the manifest with the checkpoint's history, and restore the run directory to that state."""
    resumption.refuse_other_data(loaded, start)
    if changed := resumption.changed_environment(start, manifest):
        announce(f"the last digits may differ from those of an uninterrupted run: {', '.join(changed)}")
    history = start.manifest.history
    run_directory.write_history(run, history)  # the file may be damaged, or an epoch ahead
    return manifest._replace(seconds=start.manifest.seconds, history=history)
