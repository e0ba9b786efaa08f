"""The manifest of a checkpoint: what is known of it besides the state, and whether it still is whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "manifest.json"


class Manifest(NamedTuple):
    """What is known of a checkpoint besides the state."""

    config: dict[str, Any]  # the content of config.json
    data: dict[str, Any]  # name, and sha256 by file
    versions: dict[str, str]  # by package
    device: dict[str, Any]  # platform, kind, count
    mask_scheme: int
    seconds: float  # from the start of the run, over all processes
    history: list[dict[str, float]]  # the rows of history.csv so far
    files: dict[str, str]  # sha256 by path within the checkpoint


class Broken(Exception):
    """The checkpoint is not what was written; says what is wrong."""


def write(directory: Path, about: Manifest) -> None:
    """Write the manifest of what the directory holds; `about` is everything but `files`."""
    there = (path for path in sorted(directory.rglob("*")) if path.is_file())
    files = {str(path.relative_to(directory)): _sha256(path) for path in there}
    content = about._replace(files=files)._asdict()
    # With its own digest, so that a changed manifest is noticed too.
    record = {"sha256": _digest(content), "content": content}
    (directory / MANIFEST).write_text(json.dumps(record, indent=1))


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint, if everything is as it was written.

    Raises:
        Broken: it is not.
    """
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
