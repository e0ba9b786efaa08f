"""Checkpoints: a training state in a directory of its own, through Orbax."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax

from cnnjax.artifacts import explained
from cnnjax.state import TrainState


def save(path: Path, state: TrainState) -> None:
    """Write `state` under `path`, which appears complete or not at all.

    The typed key is stored as its data, which is all that Orbax can hold of it.

    Raises:
        UserError: the disk or the directory refuses.
    """
    # Orbax takes seconds to import: not at start-up.
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(temporary.absolute(), as_tree(state))
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def restore(path: Path, like: TrainState) -> TrainState:
    """Read the state under `path` into the structure, shapes and dtypes of `like`."""
    import orbax.checkpoint as ocp

    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, as_tree(like))
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(path.absolute(), target)
    return TrainState(
        tree["step"],
        tree["params"],
        tree["opt_state"],
        jax.random.wrap_key_data(tree["key_data"], impl="threefry2x32"),
    )


def as_tree(state: TrainState) -> dict[str, Any]:
    """The state as a dictionary of plain arrays."""
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "key_data": jax.random.key_data(state.key),
    }
