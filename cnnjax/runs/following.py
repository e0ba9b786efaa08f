"""A run in the processes that do not lead it: they train along, and leave nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cnnjax.config import TrainConfig
from cnnjax.data import load, training_split
from cnnjax.devices import processes
from cnnjax.devices.layouts import Layout
from cnnjax.errors import UserError
from cnnjax.runs import checkpoints, programs
from cnnjax.state import TrainState


class Order(NamedTuple):
    """What the leader tells the others, once it knows that the run can be."""

    config: TrainConfig
    data_dir: Path | None
    sha256: dict[str, str]  # of the data
    done: int  # epochs


def follow(
    layout: Layout, data_dir: Path | None = None, announce: Callable[[str], None] = lambda _: None
) -> None:
    """Train along with `cnnjax.runs.training.train` in process 0, whose configuration counts.

    Args:
        layout: as there.
        data_dir: the directory of the four IDX files on this machine, if it is another than there.
        announce: told how a download gets on.

    Raises:
        UserError: the data cannot be had here, or are others than there.
    """
    order: Order | None = processes.from_leader(None)
    if order is None:
        return
    config = order.config
    loaded = load(config.dataset, data_dir or order.data_dir, announce=announce)
    if loaded.sha256 != order.sha256:
        raise UserError("the data are not those of process 0; give every process the same --data-dir")
    program = programs.build(config, *training_split(loaded, config.train_split), layout)
    state = common_state(program.start, layout)
    for end in programs.epochs(program, state, range(order.done, config.epochs)):
        if not programs.finite(end.row):
            raise UserError(f"the loss of epoch {end.row['epoch']} is not finite: process 0 says more")


def common_state(state: TrainState, layout: Layout) -> TrainState:
    """The leader's state, on the devices of all processes; `state` has its shapes."""
    if processes.several():
        state = checkpoints.from_host_tree(processes.from_leader(checkpoints.host_tree(state)), state)
    return layout.replicate(state)
