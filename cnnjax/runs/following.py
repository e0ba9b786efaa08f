"""The part of a run in processes other than 0: they train along and write nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax import files
from cnnjax.data import load, training_split
from cnnjax.devices import processes
from cnnjax.devices.layouts import Layout
from cnnjax.errors import ArgumentError, UserError
from cnnjax.runs import building, checkpoints, early_stopping, programs
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import TrainState


class Job(NamedTuple):
    """What process 0 sends to the others once it has accepted the run."""

    config: TrainConfig
    data_dir: Path | None
    sha256: dict[str, str]  # of the data
    history: list[dict[str, float]]  # rows of the epochs done
    circumstances: dict[str, Any]  # see `cnnjax.files.circumstances`


def follow(
    layout: Layout,
    given: Mapping[str, Any],
    data_dir: Path | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Train along with `cnnjax.runs.training.train` in process 0, which sends the configuration.

    Args:
        layout: the same as in process 0.
        given: the settings that this process was given, by their names in `TrainConfig`; others are not
            compared.
        data_dir: the directory of the four IDX files on this machine, if it is not that of process 0.
        announce: called with a line about each step of a download.

    Raises:
        ArgumentError: a setting that was given is not that of process 0.
        UserError: the data cannot be loaded here, or differ from those of process 0, or versions do.
    """
    job: Job | None = processes.from_leader(None)
    if job is None:
        return
    config = job.config
    refuse_another_job(job, given)
    loaded = load(config.dataset, data_dir or job.data_dir, announce=announce)
    if loaded.sha256 != job.sha256:
        raise UserError("the data differ from those of process 0; give every process the same --data-dir")
    custom = building.recognised(config, building.NAMED, "the run")
    program = programs.build(config, *training_split(loaded, config.train_split), layout, custom)
    state, rows = broadcast_state(program.start, layout), list(job.history)
    if early_stopping.ends(rows, config.stop_early):
        return
    for end in programs.epochs(program, state, range(len(rows), config.epochs)):
        rows.append(end.row)
        if not programs.finite(end.row):
            raise UserError(f"the loss of epoch {end.row['epoch']} is not finite; see the error of process 0")
        if early_stopping.ends(rows, config.stop_early):
            return


def refuse_another_job(job: Job, given: Mapping[str, Any]) -> None:
    """Raise an error that names what differs between this process and process 0; see `follow`."""
    # Files may have other paths here; their contents are compared.
    names = sorted(given.keys() - {"dataset", "model"})
    differ = [
        f"--{name.replace('_', '-')} {given[name]} (not {was})"
        for name in names
        if (was := getattr(job.config, name)) != given[name]
    ]
    if differ:
        raise ArgumentError(
            f"process 0 was started without {', '.join(differ)}; start the same command in every process"
        )
    files.require_same(job.circumstances, files.circumstances())


def broadcast_state(state: TrainState, layout: Layout) -> TrainState:
    """Place process 0's state on the devices of all processes; `state` gives its structure and shapes."""
    if processes.several():
        state = checkpoints.from_host_tree(processes.from_leader(checkpoints.host_tree(state)), state)
    return layout.replicate(state)
