"""Checkpoints of a run: the training state, and a manifest.

    checkpoints/epoch-N/manifest.json   SHA-256 of every other file, the configuration, the history so far
    checkpoints/epoch-N/...             the state after N epochs (cnnjax.runs.arrays)

A checkpoint is written atomically, read back before it replaces anything, and verified against its manifest
before it is restored. The last two and the one of lowest validation loss are kept.

Orbax is the format that other programs read. A population's state (`cnnjax.experiment.results`) is a single
.npz file instead: it serves only to resume, needs no manifest, and lets experiments run without Orbax.
"""

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.errors import UserError
from cnnjax.files import clear_half_written, make_directory, sync, temporary
from cnnjax.runs import arrays, manifest
from cnnjax.runs.manifest import Manifest
from cnnjax.state import TrainState, evaluation_state


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
        directory: the run's `checkpoints`, in a directory that exists. Only one process may write there.
        tree: the state, from `host_tree`.
        content: the manifest; `files` is filled in.

    Raises:
        UserError: it cannot be written or read back. Earlier checkpoints stay as they were.
    """
    path = directory / f"epoch-{len(content.history)}"
    try:
        make_directory(directory)
        _check_space(directory, 100_000 + sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        with temporary.directory(path.name, directory) as scratch:
            written = scratch / path.name
            arrays.write(written, tree)
            manifest.write(written, content)
            _require_readable(written, tree)
            for each in (written, *written.rglob("*")):
                sync(each)
            if os.path.lexists(path):  # a broken one, which the resumed run has skipped
                if (strange := foreign(path)) is not None:
                    raise UserError(f"{strange} is in its place; move that away")
                os.replace(path, scratch / "broken")
            os.replace(written, path)
            sync(directory)
    except Exception as error:  # Orbax and TensorStore raise errors of many types
        raise UserError(f"cannot save {path}: {arrays.reason(error)}") from error
    tidy(directory, content)


def tidy(directory: Path, content: Manifest) -> None:
    """Delete the checkpoints in the run's `checkpoints` that are not to be kept, given its last manifest.

    Only what a checkpoint's own manifest lists is deleted, and only if that is of this run. Later epochs can
    only be broken ones that were skipped; they stay until training reaches them.
    """
    clear_half_written(directory)
    val_loss = {int(row["epoch"]): row["val_loss"] for row in content.history}
    reached = [epoch for epoch in epochs(directory) if epoch in val_loss]
    for epoch in set(reached) - kept(reached, val_loss):
        path = directory / f"epoch-{epoch}"
        try:
            if foreign(path) is None and manifest.same_run(manifest.read(path), content):
                with temporary.directory(path.name, directory) as scratch:
                    os.replace(path, scratch / path.name)
        except (manifest.Broken, OSError):
            continue
    sync(directory)


def kept(epochs: Sequence[int], val_loss: Mapping[int, float]) -> set[int]:
    """Return which of these epochs to keep: the last two, and the first one of lowest validation loss."""
    return {*sorted(epochs)[-2:], min(epochs, key=lambda epoch: (val_loss[epoch], epoch))}


def foreign(path: Path) -> Path | None:
    """Return the first path at or in an epoch's directory that no checkpoint has there; None without any."""
    if path.is_symlink() or not path.is_dir():
        return path
    try:
        listed = {manifest.MANIFEST, *manifest.read(path).files}
    except (manifest.Broken, OSError):
        listed = None
    for each in sorted(path.rglob("*")):
        name = each.relative_to(path)
        # A broken manifest lists nothing.
        own = name.parts[0] in arrays.ORBAX | {manifest.MANIFEST} if listed is None else str(name) in listed
        if each.is_symlink() or (not each.is_dir() and not own):
            return each
    return None


def newest(directory: Path, announce: Callable[[str], None]) -> Checkpoint | None:
    """Return the last intact checkpoint, and announce the broken ones after it; None if there are none.

    Raises:
        UserError: all are broken, or the directory cannot be read. Nothing is deleted.
    """
    broken = []
    for epoch in sorted(epochs(directory), reverse=True):
        path = directory / f"epoch-{epoch}"
        try:
            checkpoint = Checkpoint(path, manifest.verify(path, epoch))
        except (manifest.Broken, OSError) as error:
            if not os.path.lexists(path):  # a training process has just deleted it, and written a later one
                return newest(directory, announce)
            broken.append(f"{path.name} ({arrays.reason(error)})")
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


def of_epoch(directory: Path, epoch: int, run: Manifest) -> Checkpoint:
    """Return the checkpoint of one epoch of the run with this manifest.

    Raises:
        UserError: it is missing or broken, or belongs to another run.
    """
    path = directory / f"epoch-{epoch}"
    try:
        checkpoint = Checkpoint(path, manifest.verify(path, epoch))
    except (manifest.Broken, OSError) as error:
        raise UserError(
            f"{path} is broken: {arrays.reason(error)}; restore it from a copy, or train anew"
        ) from error
    if not manifest.same_run(checkpoint.manifest, run):
        raise UserError(f"{path} belongs to another run than the other checkpoints; restore this run's own")
    return checkpoint


def restore(path: Path, like: TrainState) -> TrainState:
    """Read the state in a verified checkpoint, which has the structure, shapes and dtypes of `like`.

    Raises:
        UserError: Orbax cannot read it, or its arrays are others.
    """
    return from_host_tree(arrays.read_as(path, _without_typed_key(like)), like)


def restore_variables(path: Path, like: TrainState) -> TrainState:
    """Read the state of a verified checkpoint to evaluate it: without that of the optimizer.

    Raises:
        UserError: Orbax cannot read it, or it is not of the structure, shapes and dtypes of `like`.
    """
    tree = arrays.read(path)
    variables = {name: tree.get(name, {}) for name in ("params", "collections")}
    wanted = {"params": like.params, "collections": like.collections}
    return evaluation_state(**jax.tree.map(jnp.asarray, arrays.arranged(variables, wanted, path)))


def epochs(directory: Path) -> list[int]:
    """Return the epochs that have a directory.

    Raises:
        UserError: the directory cannot be read, or is a link to nowhere.
    """
    try:
        names = [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        if directory.is_symlink():
            raise UserError(f"{directory} is a link to nowhere; mount its disk, or restore it") from None
        return []
    except OSError as error:
        raise UserError(f"cannot read {directory}: {error.strerror or error}") from error
    matches = (re.fullmatch(r"epoch-([1-9]\d*)", name) for name in names)
    return [int(match[1]) for match in matches if match]


def _require_readable(path: Path, tree: dict[str, Any]) -> None:
    """Read a checkpoint back, and raise `UserError` unless it holds the bits of `tree`."""
    restored = arrays.read_as(path, tree)
    for leaf, back in zip(jax.tree.leaves(tree), jax.tree.leaves(restored), strict=True):
        if np.asarray(back).tobytes() != leaf.tobytes():
            raise UserError("read back, it differs from what was saved")


def _without_typed_key(state: TrainState) -> dict[str, Any]:
    tree = state._asdict()
    if not state.collections:
        del tree["collections"]  # checkpoints from before there were any have none either
    return tree | {"key_data": jax.random.key_data(tree.pop("key"))}


def _check_space(directory: Path, size: int) -> None:
    """Raise `OSError` if so many bytes cannot be written; TensorStore would also print much about it."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        left = memoryview(bytes(size))
        while left:  # a disk that fills up writes a part first
            left = left[file.write(left) :]
