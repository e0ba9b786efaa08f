"""Checkpoints: a training state in a directory of its own, through Orbax, and what else a resume needs.

    checkpoints/epoch-N/manifest.json   SHA-256 of every other file, the configuration, the history so far
    checkpoints/epoch-N/...             Orbax's files

A directory appears under its name whole, and on the disk, or not at all; whether it still is whole is asked
of the manifest before anything is read. The best by validation loss and the last two are kept.
"""

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnjax.devices import processes
from cnnjax.errors import UserError
from cnnjax.runs import manifest
from cnnjax.runs.manifest import Manifest
from cnnjax.state import TrainState


class Checkpoint(NamedTuple):
    """A checkpoint that was whole when it was looked at."""

    path: Path
    manifest: Manifest


def host_tree(state: TrainState) -> dict[str, Any]:
    """A copy of the state in host memory, as plain arrays: the typed key as its data.

    It shares no memory with the device, which may be given the state to overwrite.
    """
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), _plain(state))


def save(directory: Path, tree: dict[str, Any], about: Manifest) -> None:
    """Write the checkpoint of the last epoch in `about.history`, then delete those not worth keeping.

    Args:
        directory: the run's `checkpoints`; made if missing. One process writes there.
        tree: of `host_tree`.
        about: everything but `files`.

    Raises:
        UserError: the disk or the directory refuses; the earlier checkpoints are as they were.
    """
    path = directory / f"epoch-{len(about.history)}"
    aside = directory / f".{path.name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        _require_room(directory, 100_000 + sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        args, checkpointer = _orbax()
        checkpointer.save(aside.absolute(), args=args.StandardSave(tree))
        manifest.write(aside, about)
        for path_aside in (aside, *aside.rglob("*")):
            _sync(path_aside)
        if path.exists():  # a broken one, which a resume has passed over
            os.replace(path, directory / f".broken-{path.name}")
        os.replace(aside, path)
        _sync(directory)
    except Exception as error:  # Orbax and TensorStore raise what they like
        raise UserError(f"cannot save {path}: {_reason(error)}") from error
    finally:
        _sweep(directory)
    tidy(directory, about.history)


def tidy(directory: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Delete what is not to be kept; broken ones of later epochs wait until training reaches them.

    Args:
        directory: the run's `checkpoints`; one process writes there.
        history: the epochs so far.
    """
    val_loss = {int(row["epoch"]): row["val_loss"] for row in history}
    reached = [epoch for epoch in _epochs(directory) if epoch in val_loss]
    for epoch in set(reached) - kept(reached, val_loss):
        with suppress(OSError):
            os.replace(directory / f"epoch-{epoch}", directory / f".old-{epoch}")
    _sweep(directory)


def newest(directory: Path, announce: Callable[[str], None]) -> Checkpoint | None:
    """The last checkpoint that is whole; each broken one passed over is named in a line.

    None where there is no checkpoint at all.

    Raises:
        UserError: all are broken. Nothing is deleted.
    """
    passed_over = []
    for epoch in sorted(_epochs(directory), reverse=True):
        path = directory / f"epoch-{epoch}"
        try:
            found = Checkpoint(path, manifest.verify(path))
        except (manifest.Broken, OSError) as error:
            passed_over.append(f"{path.name} ({_reason(error)})")
            continue
        for line in passed_over:
            announce(f"broken checkpoint {line}: {path.name} is used")
        return found
    if passed_over:
        raise UserError(
            f"no checkpoint in {directory} is whole: {', '.join(passed_over)}; nothing was deleted: put one "
            "back from a copy, or start again with --overwrite"
        )
    return None


def restore(path: Path, like: TrainState) -> TrainState:
    """Read the state of a whole checkpoint into the structure, shapes and dtypes of `like`.

    Raises:
        UserError: Orbax cannot; other versions of the libraries may have written it.
    """
    target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _plain(like))
    try:
        args, checkpointer = _orbax()
        tree = checkpointer.restore(path.absolute(), args=args.StandardRestore(target))
    except Exception as error:
        raise UserError(f"cannot restore {path}: {_reason(error)}") from error
    return from_host_tree(tree, like)


def from_host_tree(tree: dict[str, Any], like: TrainState) -> TrainState:
    """The inverse of `host_tree`; `like` knows the kind of key."""
    # A copy: JAX would otherwise alias host arrays that it does not own, and the state is donated.
    tree = jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), tree)
    key = jax.random.wrap_key_data(tree["key_data"], impl=str(jax.random.key_impl(like.key)))
    return TrainState(tree["step"], tree["params"], tree["opt_state"], key)


def kept(epochs: Sequence[int], val_loss: Mapping[int, float]) -> set[int]:
    """Of these epochs, the last two and the one of lowest validation loss (of equals the first)."""
    return {*sorted(epochs)[-2:], min(epochs, key=lambda epoch: (val_loss[epoch], epoch))}


def warm_up() -> None:
    """Import Orbax, which takes seconds."""
    _orbax()


@cache
def _orbax() -> tuple[Any, Any]:
    """Orbax's arguments and a checkpointer."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what it reports is raised anyway
    options = ocp.options.MultiprocessingOptions()
    if processes.several():  # one of them is here, and Orbax would wait for the others
        options = ocp.options.MultiprocessingOptions(0, {0}, "cnnjax")
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.args, ocp.Checkpointer(handler, multiprocessing_options=options)


def _plain(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "key_data": jax.random.key_data(state.key),
    }


def _epochs(directory: Path) -> list[int]:
    matches = (re.fullmatch(r"epoch-([1-9]\d*)", path.name) for path in directory.glob("epoch-*"))
    return [int(match[1]) for match in matches if match]


def _sync(path: Path) -> None:
    """Wait until a file or a directory is on the disk, not just on its way."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _require_room(directory: Path, size: int) -> None:
    """Raise `OSError` if so many bytes cannot be written, before TensorStore finds out with much noise."""
    with tempfile.TemporaryFile(dir=directory, prefix=".room-", buffering=0) as file:
        left = memoryview(bytes(size))
        while left:  # a disk that fills up takes a part first
            left = left[file.write(left) :]


def _sweep(directory: Path) -> None:
    """Delete what is hidden: half-written or on its way out."""
    for path in directory.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    # TensorStore hides the operating system's words in the middle of a long line.
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(number) in text:
            return os.strerror(number)
    return text if len(text) <= 200 else f"{text[:200]}..."
