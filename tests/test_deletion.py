"""Only files of a run are deleted, by name, and never before what replaces them is whole."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, assert_same_run, change_rows, contents, environment, fails, main, succeeds, train

from cnnjax import files
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files import exchange, temporary
from cnnjax.runs import programs, run_directory, verification

NEW = ("--seed", "1", "--epochs", "1")


@pytest.fixture(scope="module")
def _old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "old"
    succeeds(*train(out, "--epochs", "2"))
    return out


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "new"
    succeeds(*train(out, *NEW))
    return out


@pytest.fixture
def old(_old: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, alone in its directory."""
    return shutil.copytree(_old, tmp_path / "alone" / "run")


# What is not of a run


FOREIGN = ["checkpoints/weights.pt", "history.csv/mine", "checkpoints/.ssh/id"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_parts_that_no_run_has_are_refused_and_stay(flag: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    for path in (name, "report.html", "history.csv2"):
        (tmp_path / path).write_text("mine")
    before = contents(tmp_path)
    ended = main(*train(tmp_path, flag, "--epochs", "1"))
    assert ended.code == 2 and name.split("/id")[0] in ended.err and "not of a run" in ended.err, ended
    assert contents(tmp_path) == before


PLANTED = [
    "notes.txt",
    ".env.local-backup",
    ".history.csv-abc123de",
    "checkpoints/.bashrc",
    "checkpoints/epoch-2/notes.txt",
    "checkpoints/epoch-07/x",
    "tensorboard/train/events.out.tfevents.1.host",
]


@pytest.mark.parametrize("name", PLANTED)
def test_a_run_with_something_else_in_it_is_not_replaced(name: str, old: Path) -> None:
    (old / name).parent.mkdir(parents=True, exist_ok=True)
    (old / name).write_text("mine")
    before = contents(old.parent)
    line = fails(2, *train(old, "--overwrite", *NEW))
    assert str(Path(name).parts[0]) in line and "not of a run" in line
    assert contents(old.parent) == before


def test_nothing_is_deleted_or_written_through_a_link(old: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(old / "checkpoints", elsewhere)
    (elsewhere / ".bashrc").write_text("mine")
    (old / "checkpoints").symlink_to(elsewhere)
    before = contents(elsewhere)
    for flag in ("--resume", "--overwrite"):
        assert "checkpoints is a link" in fails(2, *train(old, flag, "--epochs", "5"))
    succeeds("evaluate", str(old))
    assert contents(elsewhere) == before
    shutil.move(elsewhere, tmp_path / "unmounted")
    rows = (old / "history.csv").read_bytes()
    for command in (train(old, "--resume", "--epochs", "5"), ["evaluate", str(old)]):
        assert "checkpoints is a link to nowhere" in fails(1, *command)
    assert (old / "history.csv").read_bytes() == rows


def test_checkpoints_that_cannot_be_read_are_not_taken_for_none(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the run would begin again in their place."""
    (old / "result.json").unlink()
    before, listed = contents(old), Path.iterdir

    def iterdir(path: Path) -> Any:
        if path.name == "checkpoints":
            raise PermissionError(13, os.strerror(13))
        return listed(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", iterdir)
        for command in ("train --resume --out", "evaluate", "report"):
            assert f"cannot read {old / 'checkpoints'}: Permission" in fails(1, *command.split(), str(old))
    assert contents(old) == before


def test_a_linked_epoch_is_neither_pruned_nor_replaced(old: Path, tmp_path: Path) -> None:
    shutil.move(old / "checkpoints" / "epoch-1", tmp_path / "one")
    (old / "checkpoints" / "epoch-1").symlink_to(tmp_path / "one")
    before = contents(tmp_path / "one")
    succeeds("train", "--resume", "--out", str(old), "--epochs", "4")
    assert (old / "checkpoints" / "epoch-1").is_symlink() and contents(tmp_path / "one") == before


def test_a_checkpoint_of_another_run_is_not_pruned(old: Path, new: Path) -> None:
    shutil.rmtree(old / "checkpoints" / "epoch-1")
    shutil.copytree(new / "checkpoints" / "epoch-1", old / "checkpoints" / "epoch-1")
    before = contents(old / "checkpoints" / "epoch-1")
    succeeds("train", "--resume", "--out", str(old), "--epochs", "4")
    assert contents(old / "checkpoints" / "epoch-1") == before


def test_files_of_other_commands_go_with_the_run(old: Path, new: Path) -> None:
    """But those of the same name that no command wrote, or that were changed, are somebody else's."""
    succeeds("report", str(old))
    succeeds("export", str(old))
    written = contents(old)
    for name in ("report.html", "model.stablehlo", "model.onnx"):
        (old / name).write_text("mine")
        before = contents(old.parent)
        assert f"{old} holds {name}, which is not of a run" in fails(2, *train(old, "--overwrite", *NEW))
        assert contents(old.parent) == before
        (old / name).write_bytes(written[name]) if name in written else (old / name).unlink()
    succeeds(*train(old, "--overwrite", *NEW))
    assert_same_run(old, new)
    assert [path.name for path in old.parent.iterdir()] == ["run"]


def test_a_resumed_run_deletes_nothing_that_it_does_not_replace(old: Path) -> None:
    names = [*PLANTED, "report.html", "model.onnx", "checkpoints/epoch-1/notes.txt"]
    for name in names:
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text("mine")
    succeeds("train", "--resume", "--out", str(old), "--epochs", "5")
    assert all((old / name).read_text() == "mine" for name in names)


# Replacement


class Fault(OSError):
    """Raised by an operation on files."""


def _run_of(out: Path) -> int:
    """Return the seed of the run in a directory."""
    return json.loads((out / "config.json").read_text())["seed"]


def _fails_at(patch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Let the `number`-th operation that changes files fail; return a function that counts them."""
    count = 0

    def watched(operation: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise Fault(5, os.strerror(5))
            return operation(*arguments, **options)

        return call

    for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"):
        patch.setattr(os, name, watched(getattr(os, name)))
    patch.setattr("cnnjax.runs.replacement.exchange", watched(exchange.exchange))
    return lambda: count


def without_lock(run: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(run).items() if name != ".lock"}


class Stop(Exception):
    """In place of compiling a program: what comes after the exchange is tested as a resume."""


def _stop(*_: object, **__: object) -> None:
    raise Stop


def test_whatever_fails_the_directory_is_the_old_run_or_the_new_one(
    _old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(programs, "build", _stop)
    for number in range(1, 100):
        out = shutil.copytree(_old, tmp_path / str(number) / "run")
        before = contents(out)
        with monkeypatch.context() as patch:
            count = _fails_at(patch, number)
            ended = main(*train(out, "--overwrite", *NEW))
        assert ended.code == 1 and ended.err.count("\n") == 1
        seeds.append(_run_of(out))
        if seeds[-1] == 0:
            assert without_lock(out) == before and "Stop" not in ended.err
        else:
            assert without_lock(out).keys() == {"config.json"}
            (aside,) = (path for path in out.parent.iterdir() if path != out)
            assert without_lock(aside) == before
        if count() < number:
            break
    assert len(seeds) > 5 and set(seeds[:-1]) == {0, 1} and seeds[-1] == 1


def test_an_interrupted_replacement_goes_on_as_the_new_run(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(old)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "build", _stop)
        main(*train(old, "--overwrite", *NEW))
        main(*train(old, "--overwrite", *NEW))
    asides = sorted(path for path in old.parent.iterdir() if path != old)
    assert contents(asides[0]) == before and contents(asides[1]).keys() == {"config.json"}
    (asides[0] / "mine").touch()
    printed = succeeds("train", "--resume", "--out", str(old))
    assert f"stays in {asides[0]}" in printed and "mine" in printed
    assert_same_run(old, new)
    assert contents(asides[0]) == before | {"mine": b""} and not asides[1].exists()
    (asides[0] / "mine").unlink()
    succeeds("train", "--resume", "--out", str(old))
    assert [path.name for path in old.parent.iterdir()] == ["run"]


def test_a_run_that_diverges_does_not_cost_the_one_before(old: Path) -> None:
    before = contents(old)
    fails(1, *train(old, "--overwrite", "--learning-rate", "1e30"))
    (aside,) = (path for path in old.parent.iterdir() if path != old)
    assert contents(aside) == before


def test_the_working_directory_is_not_replaced(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old.parent)
    monkeypatch.chdir(old)
    assert "run it elsewhere" in fails(2, *train(Path("."), "--overwrite", *NEW))
    assert contents(old.parent) == before


def test_a_file_system_without_exchange_is_named(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old.parent)
    monkeypatch.setattr(exchange, "EXCHANGE", 1 << 30)  # a flag that no kernel knows
    assert "move it away" in fails(1, *train(old, "--overwrite", *NEW))
    assert contents(old.parent) == before


@pytest.mark.slow
def test_kills_at_random_times(_old: Path, new: Path, tmp_path: Path, programs: Path) -> None:
    """Killed anywhere, the directory is the old run or the new one, and both can be resumed."""
    seen, draw, longest = list[int](), random.Random(4), 4.0
    while len(seen) < 30 and (len(seen) < 12 or len(set(seen)) < 2):
        trial = len(seen)
        out = shutil.copytree(_old, tmp_path / str(trial) / "run")
        command = [sys.executable, "-m", "cnnjax", *train(out, "--overwrite", *NEW)]
        env = environment(programs)
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, cwd=tmp_path)
        time.sleep(draw.uniform(0.1, 1.0) * longest)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seed = _run_of(out)
        seen.append(seed)
        # A machine at half speed needs longer for the other outcome, a faster one less.
        longest *= 1 / 1.2 if seed else 1.2
        assert not [problem for problem in verification.problems(out) if not problem.heals]
        succeeds("train", "--resume", "--out", str(out))
        (out / ".lock").unlink(missing_ok=True)  # which is nothing without its process
        assert_same_run(out, new if seed else _old)
        assert [path.name for path in out.parent.iterdir()] == ["run"]
    assert set(seen) == {0, 1}


# A directory that goes away


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_directory_that_is_moved_is_not_made_anew(
    replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def move(row: dict[str, float]) -> dict[str, float]:
        if row["epoch"] == 2:
            out.rename(tmp_path / "moved")
            if replaced:
                out.mkdir()
        return row

    change_rows(monkeypatch, move)
    # Without a checkpoint under way, of which Orbax would print what it cannot write any more.
    line = fails(1, *train(out, "--epochs", "3", "--checkpoint-every", "9"))
    assert "was moved or deleted" in line
    assert list(tmp_path.rglob("run/*")) == []


# Temporary files


def test_only_own_files_of_dead_processes_are_cleared(tmp_path: Path) -> None:
    dead = [".a.csv.cnnjax-01234567", ".b.cnnjax-89abcdef"]
    others = [".a.csv-01234567", ".a.csv.cnnjax-0123456", ".a.csv.cnnjax-0123456g", "a.cnnjax-01234567"]
    others += [".cnnjax-01234567", ".env.local-backup", ".a.csv.cnnjax-012345678", ".A.cnnjax-ABCDEF01"]
    (tmp_path / dead[1]).mkdir()
    (tmp_path / dead[1] / "inside").touch()
    for name in (dead[0], *others):
        (tmp_path / name).touch()
    (tmp_path / ".link.cnnjax-01234567").symlink_to(tmp_path / others[0])
    with temporary.directory("alive", tmp_path) as alive, temporary.replacement(tmp_path / "x") as file:
        (tmp_path / dead[0]).touch()
        temporary.clear(tmp_path)
        assert alive.is_dir() and Path(file.name).exists()
        left = {path.name for path in tmp_path.iterdir()} - {alive.name, Path(file.name).name}
        assert left == {*others, ".link.cnnjax-01234567"}
    assert not alive.exists() and (tmp_path / "x").exists()


def test_a_writer_clears_what_its_predecessor_left(tmp_path: Path) -> None:
    for name in (".report.html.cnnjax-01234567", ".other.html.cnnjax-01234567"):
        (tmp_path / name).touch()
    files.write_bytes(tmp_path / "report.html", b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", ".other.html.cnnjax-01234567"}


def test_own_files_are_listed_inside_out(old: Path) -> None:
    listed = run_directory.own_files(old)
    assert set(listed) == set(old.rglob("*")) and len(set(listed)) == len(listed)
    assert all(listed.index(path) < listed.index(path.parent) for path in listed if path.parent != old)
    (old / "curves.png").unlink()
    (old / "curves.png").symlink_to(TINY)
    with pytest.raises(ArgumentError, match=r"curves\.png"):
        run_directory.remove(old)


def test_watching_ends(tmp_path: Path) -> None:
    with files.watched(tmp_path) as require_in_place:
        require_in_place()
        tmp_path.rename(tmp_path.with_name("elsewhere"))
        with pytest.raises(UserError, match="moved or deleted"):
            require_in_place()
        tmp_path.mkdir()
        with pytest.raises(UserError, match="moved or deleted"):
            require_in_place()
