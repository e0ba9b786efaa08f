"""Atomic writes, the lock of an output directory, and the provenance of results."""

from cnnjax.files.atomic import (
    clear_half_written,
    explained,
    make_directory,
    read_json,
    write_bytes,
    write_csv,
    write_json,
)
from cnnjax.files.lock import claimed
from cnnjax.files.provenance import jax_settings, provenance

__all__ = [
    "claimed",
    "clear_half_written",
    "explained",
    "jax_settings",
    "make_directory",
    "provenance",
    "read_json",
    "write_bytes",
    "write_csv",
    "write_json",
]
