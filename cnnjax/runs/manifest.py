"""The manifest of a checkpoint: its metadata, and the digests that verify its files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
    files = {str(path.relative_to(directory)): _sha256(path) for path in paths}
    content = manifest._replace(files=files)._asdict()
    # With a digest of its own, so that changes of the manifest are detected too.
    record = {"sha256": _digest(content), "content": content}
    (directory / MANIFEST).write_text(json.dumps(record, indent=1))


def verify(path: Path) -> Manifest:
    """Return the manifest of a checkpoint; raise `Broken` if a file is missing or has changed."""
    if not (path / MANIFEST).is_file():
        raise Broken(f"{MANIFEST} is missing")
    try:
        record = json.loads((path / MANIFEST).read_bytes())
        if record["sha256"] != _digest(record["content"]):
            raise ValueError
        manifest = Manifest(**record["content"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Broken(f"{MANIFEST} has changed") from None
    for name, digest in manifest.files.items():
        if not (path / name).is_file():
            raise Broken(f"{name} is missing")
        if _sha256(path / name) != digest:
            raise Broken(f"{name} has changed")
    return manifest


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
