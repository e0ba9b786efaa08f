"""Atomic writes, the lock of an output directory, and the provenance of results."""

from cnnjax.files.atomic import (
    explained,
    make_directory,
    read_bytes,
    read_csv,
    read_json,
    write_bytes,
    write_csv,
    write_json,
)
from cnnjax.files.lock import busy, claimed, watched
from cnnjax.files.provenance import circumstances, jax_settings, made, provenance, require_same
from cnnjax.files.temporary import clear as clear_half_written
from cnnjax.files.temporary import sync

__all__ = [
    "busy",
    "circumstances",
    "claimed",
    "clear_half_written",
    "explained",
    "jax_settings",
    "made",
    "make_directory",
    "provenance",
    "read_bytes",
    "read_csv",
    "read_json",
    "require_same",
    "sync",
    "watched",
    "write_bytes",
    "write_csv",
    "write_json",
]
