"""Helpers for tests of whole runs: the tiny data set, the command line, and equality of two runs."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from cnnjax import cli
from cnnjax.runs import manifest, programs

ROOT = Path(__file__).parents[1]
MORE = ROOT / "tests/data"
"""1,000 and 200 digits."""
TINY = MORE / "few"
"""200 and 50 of them, because what a run costs is its images."""
CACHE: dict[str, Any] = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
FILES = {
    *("config.json", "history.csv", "result.json", "curves.png", "confusion_matrix.png", "checkpoints"),
    "model_card.md",
}
CORE_ALONE = """
import sys

NAMES = {"jaxtyping", "beartype", "tensorflow_datasets", "tyro", "matplotlib", "jinja2", "PIL"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
"""
"""Code after which only the packages of the core can be imported."""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def train(out: Path, *more: str) -> list[str]:
    """Return the arguments of a run on the tiny data set, under a name whose checksums are not enforced."""
    return ["train", "--dataset", "fashion_mnist", "--data-dir", str(TINY), "--out", str(out), *more]


def main(*arguments: str) -> Ended:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(arguments)
    return Ended(code, out.getvalue(), err.getvalue())


def new_process(*arguments: str, prelude: str = "", env: dict[str, str] | None = None) -> Ended:
    """Run the command line in a new process, after the statements of `prelude`."""
    code = f"{prelude}\nimport sys; from cnnjax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    return Ended(done.returncode, done.stdout, done.stderr)


def succeeds(*arguments: str) -> str:
    ended = main(*arguments)
    assert (ended.code, ended.err) == (0, ""), ended
    return ended.out


def fails(code: int, *arguments: str) -> str:
    """Check that a command fails with one line on stderr, from a `UserError`; return the line."""
    ended = main(*arguments)
    assert ended.code == code, ended
    assert ended.err.startswith("cnnjax: error: ") and ended.err.count("\n") == 1, ended.err
    assert "--debug" not in ended.err, ended.err
    return ended.err


def environment(directory: Path) -> dict[str, str]:
    """Return the environment of a new process with that cache and as many devices as this one."""
    cache = {**CACHE, "jax_compilation_cache_dir": str(directory)}
    options = {name.upper(): str(value) for name, value in cache.items()}
    options["JAX_NUM_CPU_DEVICES"] = str(jax.device_count())
    return {**os.environ, **options, "PYTHONPATH": str(ROOT)}


def words(text: str) -> set[str]:
    """Return the words of a text; its numbers may be those of a clock."""
    return set(re.findall(r"[^\W\d_]{2,}", text))


@contextmanager
def terminal(patch: pytest.MonkeyPatch, **env: str) -> Iterator[list[str]]:
    """Make the standard streams a terminal of 80 columns; after this context, its lines are in the list."""
    ours, theirs = os.openpty()
    shown, lines = bytearray(), list[str]()

    def read() -> None:
        with suppress(OSError):  # end of file on Linux
            while piece := os.read(ours, 65536):
                shown.extend(piece)

    reader = Thread(target=read)
    reader.start()
    with patch.context() as within:
        for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color", **env}.items():
            within.setenv(name, value)
        with os.fdopen(theirs, "w") as screen:
            within.setattr("sys.stdout", screen)
            within.setattr("sys.stderr", screen)
            yield lines
    reader.join()
    os.close(ours)
    lines += re.split("[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))


def history(run: Path) -> list[tuple[str, ...]]:
    """Return the rows of history.csv without their seconds."""
    with (run / "history.csv").open(newline="") as file:
        return [tuple(row[:-1]) for row in csv.reader(file)]


def result(run: Path) -> dict[str, Any]:
    """Return result.json without its seconds."""
    record = json.loads((run / "result.json").read_text())
    del record["seconds"]
    return record


def saved_tree(run: Path, epoch: int) -> Any:
    """Restore a checkpoint with Orbax alone."""
    import orbax.checkpoint as ocp

    path = (run / f"checkpoints/epoch-{epoch}").absolute()
    return ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(path)


def assert_same_run(run: Path, other: Path, kept: bool = True) -> None:
    """Check bitwise equality of parameters, optimizer state, key, history and result (except for seconds).

    With `kept`, also that the same checkpoints are there.
    """
    assert history(run) == history(other)
    assert result(run) == result(other)
    assert (run / "config.json").read_bytes() == (other / "config.json").read_bytes()
    epochs = result(run)["epochs"]
    ours, theirs = saved_tree(run, epochs), saved_tree(other, epochs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for leaf, same in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(leaf, same, strict=True)
    assert {path.name for path in run.iterdir()} == FILES
    ours, theirs = ({path.name for path in (parent / "checkpoints").iterdir()} for parent in (run, other))
    assert ours == theirs or not kept, ours ^ theirs


def rename(run: Path, **entries: Any) -> Path:
    """Change entries of a run's configuration, in config.json and in every manifest; return the run."""
    config = json.loads((run / "config.json").read_text()) | entries
    (run / "config.json").write_text(json.dumps(config))
    for path in run.glob("checkpoints/*/manifest.json"):
        content = json.loads(path.read_text())["content"]
        content["config"] |= entries
        path.write_text(json.dumps({"sha256": manifest._digest(content), "content": content}))
    return run


def contents(directory: Path) -> dict[str, bytes]:
    """Return all files under a directory, including hidden ones."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def change_rows(patch: pytest.MonkeyPatch, change: Callable[[dict[str, float]], dict[str, float]]) -> None:
    """Apply `change` to the row of every epoch that is trained."""
    epochs = programs.epochs

    def changed(*arguments: Any, **options: Any) -> Iterator[Any]:
        for end in epochs(*arguments, **options):
            yield end._replace(row=change(end.row))

    patch.setattr(programs, "epochs", changed)
