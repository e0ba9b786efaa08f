"""The cache of compiled programs: written once, read again, bounded, and off with one variable."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers import TINY, new_process
from jax.experimental.compilation_cache import compilation_cache

from cnnjax.cli import compiled

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_enable_compilation_cache",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the cache is, in a process that has none yet."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    with warnings.catch_warnings():
        yield tmp_path / "cnnjax" / "programs" / compiled.machine()
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def entries(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("jit_cubed*-cache")}


def compute() -> float:
    """Compile and run, without what this process remembers."""

    def cubed(x: jax.Array) -> jax.Array:
        return x**3 + 7

    return float(jax.jit(cubed)(jnp.float32(2)))


def test_a_program_is_written_once(home: Path) -> None:
    compiled.cache_programs()
    assert compute() == 15
    (before,) = entries(home).items()
    assert compute() == 15
    assert list(entries(home).items()) == [before]
    assert jax.config.values["jax_compilation_cache_max_size"] == compiled.LARGEST


def test_what_a_killed_process_left_is_compiled_again(home: Path) -> None:
    compiled.cache_programs()
    compute()
    ((name, whole),) = entries(home).items()
    (home / name).write_bytes(whole[: len(whole) // 2])
    assert compute() == 15  # JAX finds the damage
    (home / f"{name.removesuffix('-cache')}-atime").unlink()
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    compiled.cache_programs()
    assert not entries(home)
    assert compute() == 15 and len(entries(home)[name]) > len(whole) // 2


def test_jaxs_own_settings_come_first(home: Path, tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    compiled.cache_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    compiled.cache_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None and not home.exists()


@pytest.mark.parametrize("where", ["", "~no-such-user/cache"])
def test_without_a_place_for_it_programs_are_compiled(
    home: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", where or str(tmp_path / "file"))
    compiled.cache_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert compute() == 15


def test_every_command_uses_it(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    del env["JAX_COMPILATION_CACHE_DIR"]
    assert new_process("data", "--dataset", "fashion_mnist", "--data-dir", str(TINY), env=env).code == 0
    assert [path.name for path in tmp_path.glob("cnnjax/programs/*")] == [compiled.machine()]
