"""The manifest of a checkpoint: its metadata, and the digests that verify its files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax.files.records import LATER

MANIFEST = "manifest.json"


class Manifest(NamedTuple):
    """The metadata of a checkpoint."""

    config: dict[str, Any]  # the content of config.json
    data: dict[str, Any]  # name, and sha256 by file
    versions: dict[str, str]  # by package
    device: dict[str, Any]  # platform, kind, count
    mask_scheme: int
    seconds: float  # since the start of the run, without interruptions
    history: list[dict[str, float]]  # the rows of history.csv up to this epoch
    files: dict[str, str]  # sha256 by path within the checkpoint
    jax_settings: dict[str, Any] = {}  # noqa: RUF012 (never changed); those that are not the default


class Broken(Exception):
    """A file of the checkpoint is missing or has changed; the message names it."""


def write(directory: Path, manifest: Manifest) -> None:
    """Write the manifest of a checkpoint, with `files` replaced by the digests of the directory's files."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    files = {str(path.relative_to(directory)): sha256(path) for path in paths}
    content = manifest._replace(files=files)._asdict()
    # With a digest of its own, so that changes of the manifest are detected too.
    record = {"sha256": _digest(content), "content": content}
    (directory / MANIFEST).write_text(json.dumps(record, indent=1))


def read(path: Path) -> Manifest:
    """Return the manifest of a checkpoint, without a look at the files; raise `Broken` if it has changed."""
    if not (path / MANIFEST).is_file():
        raise Broken(f"{MANIFEST} is missing")
    try:
        record = json.loads((path / MANIFEST).read_bytes())
        if record["sha256"] != _digest(record["content"]):
            raise ValueError
        return Manifest(**record["content"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Broken(f"{MANIFEST} has changed") from None


def verify(path: Path, epoch: int) -> Manifest:
    """Return the manifest of an epoch's checkpoint.

    Raises:
        Broken: a file is missing or has changed, or the checkpoint is of another epoch.
    """
    manifest = read(path)
    if len(manifest.history) != epoch:
        raise Broken(f"it is that of epoch {len(manifest.history)}, renamed")
    for name, digest in manifest.files.items():
        if not (path / name).is_file():
            raise Broken(f"{name} is missing")
        if sha256(path / name) != digest:
            raise Broken(f"{name} has changed")
    return manifest


def same_run(one: Manifest, other: Manifest) -> bool:
    """Whether two checkpoints are of one run: of one configuration, data set and history."""
    if differences(one.config, other.config) or one.data["sha256"] != other.data["sha256"]:
        return False
    return all(_measured(a) == _measured(b) for a, b in zip(one.history, other.history, strict=False))


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the entries in which two records of a configuration differ, but for those that a resume changes.

    These are the number of epochs, and where the data are.
    """
    was, now = ({**LATER, **record} for record in (was, now))
    names = sorted((was.keys() | now.keys()) - {"epochs", "data_dir"})
    return [name for name in names if was.get(name) != now.get(name)]


def _measured(row: Mapping[str, float]) -> dict[str, float]:
    """Return a row without its seconds, which differ when an epoch is trained again."""
    return {name: value for name, value in row.items() if name != "seconds"}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
