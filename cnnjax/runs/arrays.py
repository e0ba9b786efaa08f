"""Trees of arrays on disk, in Orbax's format, which other programs read."""

import errno
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax.devices import processes
from cnnjax.errors import UserError, one_line
from cnnjax.files import temporary

PLAIN = re.compile(r"[\w/. ,+=@~-]*", re.ASCII)
"""Paths in which Orbax finds what it saved."""
ORBAX = {"_CHECKPOINT_METADATA", "_METADATA", "_sharding", "array_metadatas", "commit_success.txt"}
ORBAX |= {"d", "manifest.ocdbt", "ocdbt.process_0"}
"""The names that Orbax writes into a directory."""


def write(path: Path, tree: Any) -> None:
    """Save a tree of NumPy arrays in a directory that does not exist yet. Raises whatever Orbax raises."""
    args, checkpointer = orbax()
    with _plain(path.parent) as alias:
        checkpointer.save(alias / path.name, args=args.StandardSave(tree))


def read(path: Path) -> Any:
    """Read a tree as it was saved, with dictionaries and lists in place of named tuples and tuples.

    Raises:
        UserError: Orbax cannot read it, for example because other versions wrote it.
    """
    try:
        args, checkpointer = orbax()
        with _plain(path.parent) as alias:
            return checkpointer.restore(alias / path.name, args=args.StandardRestore(None))
    except Exception as error:  # Orbax and TensorStore raise errors of many types
        raise UserError(f"cannot restore {path}: {reason(error)}") from error


def read_as(path: Path, like: Any) -> Any:
    """Read a tree of the structure, shapes and dtypes of `like`, whose leaves are arrays or their shapes.

    Raises:
        UserError: Orbax cannot read it, or its arrays are others; the message names the first.
    """
    return arranged(read(path), like, path)


def arranged(tree: Any, like: Any, path: Path) -> Any:
    """Return what was `read` from `path` in the structure of `like`; see `read_as`."""
    saved, wanted = _leaves(tree), _leaves(like)
    for name in sorted(saved.keys() | wanted.keys()):
        found, expected = (_kind(leaves.get(name)) for leaves in (saved, wanted))
        if found != expected:
            raise UserError(
                f"cannot restore {path}: {'/'.join(name)} is {found}, and this program needs {expected}; use "
                "the versions that wrote it, or train anew"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [saved[name] for name in wanted])


def reason(error: BaseException) -> str:
    """Return why files cannot be read or written, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # TensorStore's messages are long lines with the operating system's message inside.
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(number) in " ".join(str(error).split()):
            return os.strerror(number)
    return one_line(error)


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


def _leaves(tree: Any) -> Mapping[tuple[str, ...], Any]:
    """Return the leaves by the names of fields, keys and positions that lead to them."""

    def name(entry: Any) -> str:
        return str(next(getattr(entry, kind) for kind in ("name", "key", "idx") if hasattr(entry, kind)))

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(map(name, path)): leaf for path, leaf in leaves}


def _kind(leaf: Any) -> str:
    """Describe an array: "float32[3, 4]"."""
    return "missing" if leaf is None else f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"


@contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    """Yield a path of a directory that Orbax and TensorStore read as we do, through a link if need be.

    They expand brackets, take a backslash for a slash and ":/" for a scheme, and want UTF-8.
    """
    if PLAIN.fullmatch(str(directory.absolute())):
        yield directory.absolute()
        return
    place = tempfile.gettempdir()
    with temporary.directory("checkpoints", Path(place if PLAIN.fullmatch(place) else "/tmp")) as holder:
        alias = holder / "checkpoints"
        alias.symlink_to(directory.absolute(), target_is_directory=True)
        yield alias
