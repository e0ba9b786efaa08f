"""JAX's persistent compilation cache: a second start loads its programs instead of compiling them."""

import hashlib
import platform
import warnings
from contextlib import suppress
from pathlib import Path

import jax
from filelock import FileLock, Timeout

from cnnjax.data import home
from cnnjax.errors import UserError

LARGEST = 256 * 2**20
"""Bytes on disk; beyond them, JAX deletes the programs that were not used for the longest time."""


def cache_programs() -> None:
    """Turn the cache on, in the user's cache directory.

    JAX's own variables keep their meaning: JAX_ENABLE_COMPILATION_CACHE=0 turns it off, and
    JAX_COMPILATION_CACHE_DIR names another directory, which is then used as JAX would. A directory that
    cannot be written is none: the programs are compiled.
    """
    if (
        jax.config.values["jax_compilation_cache_dir"] is not None
        or not jax.config.values["jax_enable_compilation_cache"]
    ):
        return
    # JAX warns of an entry that is damaged or cannot be written, and compiles.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    with suppress(UserError, OSError):
        directory = home.directory("XDG_CACHE_HOME", "~/.cache") / "cnnjax" / "programs" / machine()
        directory.mkdir(parents=True, exist_ok=True)
        _clear_torn(directory)
        jax.config.update("jax_compilation_cache_max_size", LARGEST)
        # Dozens of programs take a few hundredths of a second each.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_compilation_cache_dir", str(directory))


def _clear_torn(directory: Path) -> None:
    """Delete entries whose writer was killed: JAX writes the time of an entry after its program."""
    with suppress(Timeout), FileLock(directory / ".lockfile", timeout=1):
        for program in directory.glob("*-cache"):
            if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                program.unlink(missing_ok=True)


def machine() -> str:
    """Name this kind of machine: a program for one CPU may crash on another, and homes may be shared."""
    described = [platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        described += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]
