"""Faults injected into real runs: kills, signals, damaged files, full disks, divergence."""

import importlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from helpers import (
    TINY,
    assert_same_run,
    change_rows,
    contents,
    environment,
    fails,
    history,
    main,
    new_process,
    result,
    succeeds,
    train,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax import data, files, plots
from cnnjax.cli import runner
from cnnjax.data import idx
from cnnjax.devices import signals
from cnnjax.errors import UserError
from cnnjax.files import temporary
from cnnjax.runs import arrays, checkpoints, run_directory, training

EPOCHS = 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    succeeds(*train(out, "--epochs", str(EPOCHS)))
    return out


@pytest.fixture
def unfinished(uninterrupted: Path, tmp_path: Path) -> Path:
    """A copy with all checkpoints but without result.json."""
    out = shutil.copytree(uninterrupted, tmp_path / "unfinished")
    (out / "result.json").unlink()
    return out


# Broken checkpoints


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _missing(path: Path) -> None:
    path.unlink()


DAMAGES = (_truncated, _flipped, _emptied, _missing)


@pytest.mark.parametrize(
    ("damage", "which"),
    [(_flipped, "the largest"), (_missing, "manifest.json")],  # each file in each way: below
)
def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(
    damage: Callable[[Path], None], which: str, unfinished: Path, uninterrupted: Path
) -> None:
    newest = unfinished / "checkpoints" / f"epoch-{EPOCHS}"
    files = [path for path in newest.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    damage(largest if which == "the largest" else newest / which)
    out = succeeds("train", "--resume", "--out", str(unfinished))
    lines = [line for line in out.splitlines() if line.startswith(f"broken checkpoint epoch-{EPOCHS} (")]
    assert len(lines) == 1 and lines[0].endswith(f"using epoch-{EPOCHS - 1}")
    assert f"resumed after epoch {EPOCHS - 1}" in out
    assert_same_run(unfinished, uninterrupted)


def test_every_file_of_a_checkpoint_is_watched(unfinished: Path) -> None:
    newest = unfinished / "checkpoints" / f"epoch-{EPOCHS}"
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path, damage in itertools.product(files, DAMAGES):
        raw = path.read_bytes()
        if not raw and damage is not _missing:  # an empty file can only be deleted
            continue
        damage(path)
        lines: list[str] = []
        used = checkpoints.newest(unfinished / "checkpoints", lines.append)
        assert used is not None and used.path.name == f"epoch-{EPOCHS - 1}", (path, damage)
        assert len(lines) == 1 and path.name in lines[0]
        path.write_bytes(raw)


@settings(max_examples=100)
@given(st.data())
def test_any_flipped_bit_is_noticed(uninterrupted: Path, draw: st.DataObject) -> None:
    newest = uninterrupted / "checkpoints" / f"epoch-{EPOCHS}"
    path = draw.draw(
        st.sampled_from(sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size))
    )
    raw = path.read_bytes()
    bit = draw.draw(st.integers(0, 8 * len(raw) - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    whole = checkpoints.newest(newest.parent, print)
    try:
        path.write_bytes(changed)
        used = checkpoints.newest(newest.parent, lambda line: None)
        assert used is not None and whole is not None
        # A flipped bit may leave JSON's meaning unchanged: 1e-05 and 1E-05.
        assert used.path != newest or used.manifest == whole.manifest
    finally:
        path.write_bytes(raw)


def test_all_broken_is_an_error_and_nothing_is_deleted(unfinished: Path) -> None:
    for newest in (unfinished / "checkpoints").iterdir():
        _emptied(newest / "manifest.json")
    before = contents(unfinished)
    line = fails(1, "train", "--resume", "--out", str(unfinished))
    assert all(f"epoch-{epoch} (manifest.json has changed)" in line for epoch in (2, 3))
    assert "--overwrite" in line
    assert contents(unfinished) == before


def test_a_whole_checkpoint_that_orbax_cannot_read(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, checkpointer = arrays.orbax()

    def restore(*_: object, **__: object) -> None:
        raise ValueError("a\nb")

    monkeypatch.setattr(type(checkpointer), "restore", restore)
    before = contents(unfinished)
    line = fails(1, "train", "--resume", "--out", str(unfinished))
    assert f"cannot restore {unfinished / 'checkpoints' / 'epoch-3'}: a b" in line
    assert contents(unfinished) == before


# The other files


@pytest.mark.parametrize("left", [0, 40, -1])
def test_a_torn_history_is_rebuilt(left: int, unfinished: Path, uninterrupted: Path) -> None:
    path = unfinished / "history.csv"
    path.write_bytes(path.read_bytes()[:left])
    succeeds("train", "--resume", "--out", str(unfinished))
    assert path.read_bytes() == (uninterrupted / "history.csv").read_bytes()
    assert_same_run(unfinished, uninterrupted)


def test_figures_that_cannot_be_drawn_cost_nothing_else(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matplotlibrc may ask for LaTeX, which is not there; the test accuracy is on disk before."""

    def without_latex(*_: Any) -> Any:
        assert "accuracy" in json.loads((out / "result.json").read_text())["test"]
        raise RuntimeError("latex\nis not there")

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(plots, "training_curves", without_latex)
        printed = succeeds(*train(out, "--epochs", str(EPOCHS)))
    line = "curves.png cannot be drawn, but the numbers are complete (RuntimeError: latex is not there)"
    assert line in printed.splitlines()
    record, expected = result(out), result(uninterrupted)
    assert record.pop(run_directory.UNDRAWN) == ["curves.png"]
    expected["figures"].pop("curves.png")
    for each in (record, expected):
        del each["sha256"]
    assert record == expected and not (out / "curves.png").exists()
    before = contents(out)
    assert "has finished" in succeeds("train", "--resume", "--out", str(out))
    assert contents(out) == before


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff\xfe"])
def test_a_damaged_result_is_made_anew(raw: bytes, unfinished: Path, uninterrupted: Path) -> None:
    (unfinished / "result.json").write_bytes(raw)
    succeeds("train", "--resume", "--out", str(unfinished))
    assert_same_run(unfinished, uninterrupted)


@pytest.mark.parametrize("saved", [EPOCHS - 1, EPOCHS])
def test_what_a_killed_process_left_is_swept_away(saved: int, unfinished: Path, uninterrupted: Path) -> None:
    """Also where there is nothing left to save."""
    (unfinished / ".history.csv.cnnjax-01234567").write_text("epoch,lo")
    (unfinished / ".lock").touch()
    for name in (".epoch-3.cnnjax-01234567", ".epoch-4.cnnjax-89abcdef"):
        (unfinished / "checkpoints" / name).mkdir()
        (unfinished / "checkpoints" / name / "half").write_text("?")
    if saved < EPOCHS:
        shutil.rmtree(unfinished / "checkpoints" / f"epoch-{EPOCHS}")
    succeeds("train", "--resume", "--out", str(unfinished))
    assert_same_run(unfinished, uninterrupted)


# Two processes


def test_a_directory_in_use_is_refused(unfinished: Path, uninterrupted: Path) -> None:
    with files.claimed(unfinished):
        before = contents(unfinished)
        for flag in ("--resume", "--overwrite"):
            assert "another process" in fails(1, *train(unfinished, flag, "--epochs", str(EPOCHS)))
        assert contents(unfinished) == before
    succeeds("train", "--resume", "--out", str(unfinished))
    assert_same_run(unfinished, uninterrupted)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cnnjax.files import claimed\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process"), files.claimed(out):
            pass
        holder.kill()
    assert (out / ".lock").exists()
    with files.claimed(out):
        pass
    assert not (out / ".lock").exists()


def test_a_lock_file_that_was_replaced_is_not_the_lock(tmp_path: Path) -> None:
    """If the holder removes the file while another process has it open, only one may hold the new one."""
    out = tmp_path / "run"
    out.mkdir()
    for _ in range(3):
        with files.claimed(out):
            (out / ".lock").unlink()
            with files.claimed(out):
                pass


# Divergence


def test_divergence_ends_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = fails(1, *train(out, "--learning-rate", "1e30", "--epochs", "9"))
    assert "epoch 1 " in line and "--learning-rate" in line
    rows = history(out)
    assert len(rows) == 2 and not all(math.isfinite(float(text)) for text in rows[1])
    assert not (out / "result.json").exists() and not (out / "checkpoints").exists()


@pytest.mark.parametrize("name", ["loss", "val_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_each_loss_is_watched(name: str, value: float) -> None:
    row = {"loss": 1.0, "val_loss": 1.0}
    assert training.programs.finite(row) and not training.programs.finite(row | {name: value})


def test_divergence_keeps_the_last_good_checkpoint(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        change_rows(patch, lambda row: row | {"val_loss": math.inf} if row["epoch"] == 3 else row)
        line = fails(1, *train(out, "--epochs", str(EPOCHS), "--checkpoint-every", "5"))
    assert "epoch 3 " in line and "the state after epoch 2 is kept" in line
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["epoch-2"]
    assert len(history(out)) == 4
    succeeds("train", "--resume", "--out", str(out))  # had it been an accident
    assert_same_run(out, uninterrupted)


# A full disk; a clock that is set back


SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"


@pytest.mark.slow
def test_no_room_for_a_checkpoint(uninterrupted: Path, tmp_path: Path, programs: Path) -> None:
    """A limit on the size of files, in a new process, stands in for a full disk."""
    out = tmp_path / "run"
    ended = new_process(*train(out, "--epochs", str(EPOCHS)), env=environment(programs), prelude=SMALL_FILES)
    assert ended.code == 1
    assert ended.err.startswith("cnnjax: error: cannot save") and ended.err.count("\n") == 1
    assert ended.out.count("cannot save") == EPOCHS - 1
    assert "training continues (there is none yet)" in ended.out
    assert len(history(out)) == EPOCHS + 1
    assert not (out / "result.json").exists() and not list((out / "checkpoints").iterdir())
    succeeds("train", "--resume", "--out", str(out))
    assert_same_run(out, uninterrupted)


@pytest.mark.slow
def test_no_room_for_the_next_checkpoint(uninterrupted: Path, tmp_path: Path, programs: Path) -> None:
    out = tmp_path / "run"
    succeeds(*train(out, "--epochs", "1"))
    before = contents(out / "checkpoints")
    arguments = ["train", "--resume", "--out", str(out), "--epochs", str(EPOCHS)]
    ended = new_process(*arguments, env=environment(programs), prelude=SMALL_FILES)
    assert ended.code == 1 and "File too large" in ended.err, ended
    assert "the last good one is epoch-1" in ended.out
    assert contents(out / "checkpoints") == before
    succeeds("train", "--resume", "--out", str(out))
    assert_same_run(out, uninterrupted)


def test_no_room_for_anything(unfinished: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    before = contents(unfinished)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left" in fails(1, "train", "--resume", "--out", str(unfinished))
    assert contents(unfinished) == before
    succeeds("train", "--resume", "--out", str(unfinished))
    assert_same_run(unfinished, uninterrupted)


def test_a_clock_set_back_is_not_noticed(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(2e9, -3600.0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: next(clock))
        succeeds(*train(tmp_path / "run", "--epochs", str(EPOCHS)))
    assert_same_run(tmp_path / "run", uninterrupted)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert all(0 <= float(line.split(",")[-1]) < 60 for line in lines)
    seconds = json.loads((tmp_path / "run" / "result.json").read_text())["seconds"]
    assert all(0 <= value < 600 for value in seconds.values())


# Signals


# A background job of a shell ignores Ctrl-C, and so do its children by default.
WITH_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from cnnjax.cli import main
sys.exit(main())
"""


def _signalled(
    out: Path, epochs: int, moment: str, delay: float, number: signal.Signals, programs: Path
) -> tuple[int, str]:
    """Signal a run `delay` seconds after a line that starts with `moment`; return exit code and stderr."""
    command = [sys.executable, "-u", "-c", WITH_CTRL_C, *train(out, "--epochs", str(epochs))]
    pipes: Any = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, env=environment(programs), **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(moment):
                break
        time.sleep(delay)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
def test_a_signal_saves_first(number: signal.Signals, code: int, tmp_path: Path, programs: Path) -> None:
    out = tmp_path / "run"
    returned, err = _signalled(out, 3000, "epoch    4/", 0, number, programs)
    assert returned == code, err
    match = re.fullmatch(r"cnnjax: interrupted with (\d+) of 3000 epochs saved; to continue: .*\n", err)
    assert match, err
    assert f"train --resume --out {out}" in err
    saved = int(match[1])
    assert saved >= 4 and (out / "checkpoints" / f"epoch-{saved}").is_dir()
    assert abs(len(history(out)) - 1 - saved) <= 1, "the signal may come between the two"
    assert f"resumed after epoch {saved} of" in succeeds(
        "train", "--resume", "--out", str(out), "--epochs", str(saved + 1)
    )


@pytest.mark.parametrize("kind", [signals.Terminated, signals.HungUp, signals.Warned])
def test_every_signal_that_announces_the_end_is_an_interrupt(kind: type[signals.Terminated]) -> None:
    def job() -> None:
        signal.raise_signal(kind.number)
        time.sleep(30)

    before = signal.signal(kind.number, signal.SIG_DFL)  # nohup has SIGHUP ignored
    try:
        assert runner.run(lambda: job, "", []) == 128 + kind.number
        with pytest.raises(kind), signals.as_exceptions():
            job()
        assert signal.getsignal(kind.number) is signal.SIG_DFL
    finally:
        signal.signal(kind.number, before)


def test_an_interrupt_that_python_drops_is_raised_again() -> None:
    class Dropper:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            sum(range(10))

    began = time.monotonic()
    with pytest.raises(signals.Terminated), signals.as_exceptions():
        Dropper()
        time.sleep(30)
    assert time.monotonic() - began < 10


def test_an_interrupt_waits_for_the_end_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("import signal, time", "signal.raise_signal(signal.SIGTERM)", "time.sleep(0.2)", "done = True")
    (tmp_path / "imported_under_fire.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), signals.as_exceptions():
        importlib.import_module("imported_under_fire")
        time.sleep(30)
    assert sys.modules.pop("imported_under_fire").done


def _interrupted_at(opcode: int, job: Callable[[], None]) -> bool:
    """Send SIGTERM before the opcode of this number; return whether the job has so many."""
    seen = itertools.count()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and next(seen) == opcode:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return trace

    try:
        with signals.as_exceptions():
            sys.settrace(trace)
            job()
            sys.settrace(None)
            if next(seen) > opcode:
                time.sleep(10)
    except signals.Terminated:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("kind", ["file", "directory", "lock"])
def test_an_interrupt_at_any_instruction_leaves_no_temporary_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "RETRY", 1e-4)

    def job() -> None:
        if kind == "file":
            files.write_bytes(tmp_path / "file", b"content")
        elif kind == "directory":
            with temporary.directory("word", tmp_path) as scratch:
                (scratch / "file").touch()
        else:
            with files.claimed(tmp_path):
                pass

    opcode = 0
    while _interrupted_at(opcode, job):
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], opcode
        opcode += 1
    assert opcode > 100


def test_what_is_to_be_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.as_exceptions():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_signals_at_random_moments(tmp_path: Path, programs: Path) -> None:
    draw = random.Random(3)
    moments = ["keras-cnn", "197,210", "epoch  1/", "epoch  2/", "epoch 10/", "epoch 30/"]
    for trial, moment in enumerate(moments * 2):
        out = tmp_path / f"run-{trial}"
        number = draw.choice([signal.SIGINT, signal.SIGTERM])
        code, err = _signalled(out, 30, moment, draw.uniform(0, 0.4), number, programs)
        if code == 0:
            assert err == "" and (out / "result.json").exists()
        else:
            assert code == 128 + number
            match = re.fullmatch(r"cnnjax: interrupted with (\d+) of 30 epochs saved; .*\n", err)
            assert match, err
            assert match[1] == "0" or (out / "checkpoints" / f"epoch-{match[1]}").is_dir()
        assert not [name for name in contents(out) if "/." in f"/{name}"]


# A fuzz of the IDX files


@pytest.fixture(scope="module")
def idx_files() -> dict[str, bytes]:
    small = {}
    for file, path in idx.find(TINY).items():
        array = idx.decode(idx.read(path), 3 if "images" in file else 1, file)
        small[file] = idx.encode(np.ascontiguousarray(array[:20]))
    return small


EDITS = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.integers(0, 10**6)),
    st.tuples(st.just("header"), st.integers(0, 15), st.integers(0, 255)),
    st.tuples(st.just("prefix"), st.sampled_from([0x1F8B, 0x504B, 0x0000]), st.just(0)),
)


@settings(max_examples=100)
@given(st.sampled_from(idx.FILES), st.lists(EDITS, min_size=1, max_size=4), st.booleans())
def test_any_damage_to_the_data_is_one_line(
    idx_files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    file: str,
    edits: list[tuple[str, int, int]],
    compress: bool,
) -> None:
    import gzip

    raw = bytearray(gzip.compress(idx_files[file], mtime=0) if compress else idx_files[file])
    for kind, where, what in edits:
        if kind == "prefix":
            raw[:2] = where.to_bytes(2, "big")
        elif raw and kind == "flip":
            raw[where % len(raw)] ^= 1 << what
        elif raw and kind == "header":
            raw[where % len(raw)] = what
        elif raw:
            start = where % len(raw)
            del raw[start : start + what % len(raw)]
    directory = tmp_path_factory.mktemp("idx")
    for name, content in (idx_files | {file: bytes(raw)}).items():
        (directory / name).write_bytes(content)
    try:
        loaded = data.load("fashion_mnist", directory)
    except UserError as error:
        assert file in str(error) or file.split("-")[0] in str(error)
        return
    assert loaded.train.images.shape[1:] == (28, 28, 1)
    assert len(loaded.train.images) == len(loaded.train.labels)
    assert int(loaded.train.labels.max()) <= 9


def test_a_fault_in_the_code_is_still_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(training.programs, "build", broken)
    ended = main(*train(tmp_path / "run"))
    assert ended.code == 1
    assert ended.err == "cnnjax: error: ZeroDivisionError: a b (--debug shows where)\n"
    assert "Traceback" in main(*train(tmp_path / "run", "--overwrite", "--debug")).err
