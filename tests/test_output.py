"""Standard output that is closed, broken, full or of few characters, and an environment that lacks things."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import ROOT, TINY, environment, fails, train

from cnnjax import experiment
from cnnjax.cli.output import Output
from cnnjax.config import HParams
from cnnjax.data import Dataset, load, loading, tfds_store
from cnnjax.errors import ArgumentError, UserError
from cnnjax.models import ConvNet

DATA = ["data", "--dataset", "fashion_mnist", "--data-dir", str(TINY)]


def shell(
    redirection: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in bash; the exit code is the command's, not that of what it is piped into."""
    line = f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}'
    command = ["bash", "-c", line, "bash", sys.executable, "-m", "cnnjax", *arguments]
    env = env or {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        (">&-", 0, ""),
        ("| true", 141, ""),
        pytest.param("2>&1 | true", 141, "", marks=pytest.mark.slow),
        (">/dev/full", 1, "cnnjax: error: cannot write to standard output: No space left on device\n"),
    ],
)
def test_output_that_nobody_reads(redirection: str, code: int, says: str) -> None:
    # Without a buffer every line is lost, not only the last flush.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    done = shell(redirection, *DATA, env=env)
    assert (done.returncode, done.stderr) == (code, says)


def test_versions_that_nobody_reads() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    done = shell(">/dev/full", "--version", env=env)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "cannot write" in done.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_stops_no_training(tmp_path: Path, programs: Path) -> None:
    done = shell("| head -1", *train(tmp_path / "run", "--epochs", "2"), env=environment(programs))
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout.count("\n") == 1
    assert json.loads((tmp_path / "run/result.json").read_text())["epochs"] == 2


def test_characters_that_the_terminal_lacks_are_replaced() -> None:
    code = "from cnnjax.cli import output; output.protect(); print('mean \\xb1 0.1, \\udcff')"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (0, "mean ? 0.1, ?\n"), done.stderr


def test_names_cannot_command_a_terminal(tmp_path: Path) -> None:
    """A name can hold escapes, which would recolour the terminal, set its title or clear it."""
    line = fails(2, "evaluate", str(tmp_path / "a\x1b]0;title\x07\x9b2J\u202eb ±"))
    assert r"a\x1b]0;title\x07\x9b2J\u202eb ±" in line and line.rstrip("\n").isprintable()


def test_what_is_written_before_the_reader_leaves_arrives(tmp_path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe, Output(pipe, "utf-8", "replace", line_buffering=True) as stream:
        print("first", file=stream)
        assert (os.read(read, 100), stream.error) == (b"first\n", None)
        os.close(read)
        print("second", file=stream)
        assert isinstance(stream.error, BrokenPipeError)
        print("third", file=stream, flush=True)


def test_settings_under_which_nothing_can_be_trained(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cuda"}
    done = shell("", *train(tmp_path / "run"), env=env)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "platform cuda" in done.stderr and "--debug" not in done.stderr
    with jax.disable_jit():  # as JAX_DISABLE_JIT has it
        assert "unset it" in fails(2, *train(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_experiment_is_refused_without_compilation(tmp_path: Path) -> None:
    protocol = experiment.Protocol(1, 1, dataset="fashion_mnist")
    splits = experiment.prepare(protocol, TINY, announce=lambda _: None)
    with jax.disable_jit(), pytest.raises(ArgumentError, match="JAX_DISABLE_JIT"):
        experiment.run([], protocol, splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("empty", ["train", "val", "test"])
def test_splits_are_not_empty(empty: str, tmp_path: Path) -> None:
    parts = {
        name: Dataset(
            np.zeros((int(name != empty), 28, 28, 1), np.uint8), np.zeros(int(name != empty), np.int32)
        )
        for name in ("train", "val", "test")
    }
    arms, splits = [experiment.Arm("a", ConvNet(), HParams(1e-3, 0.0))], experiment.Splits(**parts, sha256={})
    with pytest.raises(ArgumentError, match="at least one"):
        experiment.run(arms, experiment.Protocol(1, 1), splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_home_directory_nothing_is_written_into_a_directory_named_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as with no HOME and no passwd entry
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for where in (lambda: loading.cache_path("mnist"), tfds_store.data_dir, lambda: load("mnist")):
        with pytest.raises(UserError, match="set HOME or "):
            where()
    assert "set HOME or " in fails(1, "data")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert loading.cache_path("mnist") == Path("/elsewhere/cnnjax/mnist.zip")
