"""Checkpoints of a run: the training state, saved with Orbax, and a manifest.

    checkpoints/epoch-N/manifest.json   SHA-256 of every other file, the configuration, the history so far
    checkpoints/epoch-N/...             Orbax's files

A checkpoint is written atomically, read back before it replaces anything, and verified against its manifest
before it is restored. The last two and the one of lowest validation loss are kept.

Orbax is the format that other programs read. A population's state (`cnnjax.experiment.results`) is a single
.npz file instead: it serves only to resume, needs no manifest, and lets experiments run without Orbax.
"""

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.devices import processes
from cnnjax.errors import UserError, one_line
from cnnjax.runs import manifest
from cnnjax.runs.manifest import Manifest
from cnnjax.state import TrainState, evaluation_state

PLAIN = re.compile(r"[\w/. ,+=@~-]*", re.ASCII)
"""Paths in which Orbax finds what it saved."""


class Checkpoint(NamedTuple):
    """A checkpoint that has been verified."""

    path: Path
    manifest: Manifest


def host_tree(state: TrainState) -> dict[str, Any]:
    """Copy a state to host memory, as NumPy arrays; the state may be donated afterwards."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), _without_typed_key(state))


def from_host_tree(tree: dict[str, Any], like: TrainState) -> TrainState:
    """Invert `host_tree`; `like` gives the PRNG implementation of the key."""
    # Copy, because JAX would alias host arrays that it does not own, and a state is donated.
    tree = jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), tree)
    key = jax.random.wrap_key_data(tree.pop("key_data"), impl=str(jax.random.key_impl(like.key)))
    return like._replace(**tree, key=key)


def save(directory: Path, tree: dict[str, Any], content: Manifest) -> None:
    """Write the checkpoint of the last epoch in `content.history`, and delete those no longer kept.

    Args:
        directory: the run's `checkpoints`, created if missing. Only one process may write there.
        tree: the state, from `host_tree`.
        content: the manifest; `files` is filled in.

    Raises:
        UserError: it cannot be written or read back. Earlier checkpoints stay as they were.
    """
    path = directory / f"epoch-{len(content.history)}"
    temporary = directory / f".{path.name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _delete_hidden(directory)
        _check_space(directory, 100_000 + sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        args, checkpointer = orbax()
        with _plain(directory) as alias:
            checkpointer.save(alias / temporary.name, args=args.StandardSave(tree))
        manifest.write(temporary, content)
        _require_readable(temporary, tree)
        for written in (temporary, *temporary.rglob("*")):
            _sync(written)
        if path.exists():  # a broken one, which the resumed run has skipped
            os.replace(path, directory / f".broken-{path.name}")
        os.replace(temporary, path)
        _sync(directory)
    except Exception as error:  # Orbax and TensorStore raise errors of many types
        raise UserError(f"cannot save {path}: {_reason(error)}") from error
    finally:
        _delete_hidden(directory)
    tidy(directory, content.history)


def tidy(directory: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Delete the checkpoints in the run's `checkpoints` that are not to be kept, given the history so far.

    Later epochs can only be broken ones that were skipped; they stay until training reaches them.
    """
    val_loss = {int(row["epoch"]): row["val_loss"] for row in history}
    reached = [epoch for epoch in _epochs(directory) if epoch in val_loss]
    for epoch in set(reached) - kept(reached, val_loss):
        with suppress(OSError):
            os.replace(directory / f"epoch-{epoch}", directory / f".old-{epoch}")
    _delete_hidden(directory)


def kept(epochs: Sequence[int], val_loss: Mapping[int, float]) -> set[int]:
    """Return which of these epochs to keep: the last two, and the first one of lowest validation loss."""
    return {*sorted(epochs)[-2:], min(epochs, key=lambda epoch: (val_loss[epoch], epoch))}


def newest(directory: Path, announce: Callable[[str], None]) -> Checkpoint | None:
    """Return the last intact checkpoint, and announce the broken ones after it; None if there are none.

    Raises:
        UserError: all are broken. Nothing is deleted.
    """
    broken = []
    for epoch in sorted(_epochs(directory), reverse=True):
        path = directory / f"epoch-{epoch}"
        try:
            checkpoint = Checkpoint(path, manifest.verify(path))
        except (manifest.Broken, OSError) as error:
            broken.append(f"{path.name} ({_reason(error)})")
            continue
        for name in broken:
            announce(f"broken checkpoint {name}: using {path.name}")
        return checkpoint
    if broken:
        raise UserError(
            f"all checkpoints in {directory} are broken: {', '.join(broken)}; nothing was deleted; restore "
            "one from a copy, or start again with --overwrite"
        )
    return None


def of_epoch(directory: Path, epoch: int) -> Checkpoint:
    """Return the checkpoint of one epoch.

    Raises:
        UserError: it is missing or broken.
    """
    path = directory / f"epoch-{epoch}"
    try:
        return Checkpoint(path, manifest.verify(path))
    except (manifest.Broken, OSError) as error:
        reason = _reason(error)
        raise UserError(f"{path} is broken: {reason}; restore it from a copy, or train anew") from error


def restore(path: Path, like: TrainState) -> TrainState:
    """Read the state in a verified checkpoint, which has the structure, shapes and dtypes of `like`.

    Raises:
        UserError: Orbax cannot read it, for example because other versions wrote it.
    """
    target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _without_typed_key(like))
    return from_host_tree(_read(path, target), like)


def restore_variables(path: Path, like: TrainState) -> TrainState:
    """Read the state of a verified checkpoint to evaluate it: without that of the optimizer.

    Raises:
        UserError: Orbax cannot read it, or it is not of the structure, shapes and dtypes of `like`.
    """
    tree = _read(path, None)
    variables = {"params": tree["params"], "collections": tree.get("collections", {})}
    expected = {"params": like.params, "collections": like.collections}
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (variables, expected)]
    if shapes[0] != shapes[1]:
        raise UserError(f"cannot restore {path}: its arrays are not those of the model; train anew")
    return evaluation_state(**jax.tree.map(jnp.asarray, variables))


def _require_readable(path: Path, tree: dict[str, Any]) -> None:
    """Read a checkpoint back, and raise `UserError` unless it holds the bits of `tree`."""
    restored = _read(path, jax.tree.map(np.zeros_like, tree))
    for leaf, back in zip(jax.tree.leaves(tree), jax.tree.leaves(restored), strict=True):
        if np.asarray(back).dtype != leaf.dtype or np.asarray(back).tobytes() != leaf.tobytes():
            raise UserError("read back, it differs from what was saved")


def _read(path: Path, target: Any) -> dict[str, Any]:
    try:
        args, checkpointer = orbax()
        with _plain(path.parent) as alias:
            return checkpointer.restore(alias / path.name, args=args.StandardRestore(target))
    except Exception as error:
        raise UserError(f"cannot restore {path}: {_reason(error)}") from error


@contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    """Yield a path of a directory that Orbax and TensorStore read as we do, through a link if need be.

    They expand brackets, take a backslash for a slash and ":/" for a scheme, and want UTF-8.
    """
    if PLAIN.fullmatch(str(directory.absolute())):
        yield directory.absolute()
        return
    temporary = tempfile.gettempdir()
    place = temporary if PLAIN.fullmatch(temporary) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="cnnjax-", dir=place) as holder:
        alias = Path(holder, "checkpoints")
        alias.symlink_to(directory.absolute(), target_is_directory=True)
        yield alias


@cache
def orbax() -> tuple[Any, Any]:
    """Import Orbax, which takes seconds; return its arguments and a checkpointer."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # it also raises what it logs
    options = ocp.options.MultiprocessingOptions()
    if processes.several():  # only process 0 saves, and Orbax would wait for the others
        options = ocp.options.MultiprocessingOptions(0, {0}, "cnnjax")
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.args, ocp.Checkpointer(handler, multiprocessing_options=options)


def _without_typed_key(state: TrainState) -> dict[str, Any]:
    tree = state._asdict()
    if not state.collections:
        del tree["collections"]  # checkpoints from before there were any have none either
    return tree | {"key_data": jax.random.key_data(tree.pop("key"))}


def _epochs(directory: Path) -> list[int]:
    matches = (re.fullmatch(r"epoch-([1-9]\d*)", path.name) for path in directory.glob("epoch-*"))
    return [int(match[1]) for match in matches if match]


def _sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_space(directory: Path, size: int) -> None:
    """Raise `OSError` if so many bytes cannot be written; TensorStore would also print much about it."""
    with tempfile.TemporaryFile(dir=directory, prefix=".room-", buffering=0) as file:
        left = memoryview(bytes(size))
        while left:  # a disk that fills up writes a part first
            left = left[file.write(left) :]


def _delete_hidden(directory: Path) -> None:
    """Delete what is half-written or being deleted."""
    for path in directory.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # TensorStore's messages are long lines with the operating system's message inside.
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(number) in " ".join(str(error).split()):
            return os.strerror(number)
    return one_line(error)
