"""An interrupted and resumed run ends exactly as an uninterrupted one, to the bit, with dropout on."""

import json
import os
import shutil
import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
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
    saved_tree,
    succeeds,
    train,
)
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import idx
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import UserError
from cnnjax.files.atomic import LARGEST_RECORD
from cnnjax.keys import streams
from cnnjax.models import MODELS
from cnnjax.optimizers import keras_adam
from cnnjax.runs import arrays, checkpoints, resumption, training
from cnnjax.runs.manifest import Manifest
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state

EPOCHS = 4


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    succeeds(*train(out, "--epochs", str(EPOCHS)))
    return out


@pytest.fixture(scope="module")
def _shorter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shorter"
    succeeds(*train(out, "--epochs", "2"))
    return out


@pytest.fixture
def shorter(_shorter: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of two epochs."""
    return shutil.copytree(_shorter, tmp_path / "shorter")


@pytest.fixture
def interrupted(shorter: Path) -> Path:
    """A run of four epochs that was killed after its second checkpoint."""
    for name in ("result.json", "curves.png", "confusion_matrix.png"):
        (shorter / name).unlink()
    record = json.loads((shorter / "config.json").read_text())
    (shorter / "config.json").write_text(json.dumps(record | {"epochs": EPOCHS}, indent=2) + "\n")
    return shorter


# Exactness


@pytest.mark.slow
def test_a_new_process_goes_on_to_the_bit(uninterrupted: Path, interrupted: Path, programs: Path) -> None:
    ended = new_process("train", "--resume", "--out", str(interrupted), env=environment(programs))
    assert ended.code == 0 and ended.err == "", ended
    assert "resumed after epoch 2 of 4" in ended.out and "epoch 3/4" in ended.out
    assert "epoch 2/4" not in ended.out and "last digits" not in ended.out
    assert_same_run(interrupted, uninterrupted)


@pytest.mark.slow
@pytest.mark.devices
def test_another_number_of_devices_is_accepted(uninterrupted: Path, interrupted: Path) -> None:
    """Batches and masks are the same; the order of sums differs, which changes float32's last digits."""
    out = succeeds("train", "--resume", "--out", str(interrupted), "--devices", "4")
    assert "last digits" in out and "device count 4 (was 1)" in out
    for ours, theirs in zip(history(interrupted)[1:], history(uninterrupted)[1:], strict=True):
        np.testing.assert_allclose([float(x) for x in ours], [float(x) for x in theirs], rtol=1e-4)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-4),
        saved_tree(interrupted, EPOCHS)["params"],
        saved_tree(uninterrupted, EPOCHS)["params"],
    )


def test_more_epochs_are_as_if_asked_for_at_once(uninterrupted: Path, shorter: Path) -> None:
    succeeds("train", "--resume", "--out", str(shorter), "--epochs", str(EPOCHS))
    assert_same_run(shorter, uninterrupted)


def test_fewer_epochs_than_asked_for_end_there(uninterrupted: Path, interrupted: Path) -> None:
    succeeds("train", "--resume", "--out", str(interrupted), "--epochs", "3")
    assert history(interrupted) == history(uninterrupted)[:4]
    assert result(interrupted)["epochs"] == 3


def test_what_was_lost_after_the_last_checkpoint_is_done_again(
    uninterrupted: Path, interrupted: Path
) -> None:
    shutil.rmtree(interrupted / "checkpoints" / "epoch-2")
    assert "resumed after epoch 1" in succeeds("train", "--resume", "--out", str(interrupted))
    assert_same_run(interrupted, uninterrupted)


def test_without_a_checkpoint_it_begins(uninterrupted: Path, interrupted: Path) -> None:
    shutil.rmtree(interrupted / "checkpoints")
    assert "epoch 1/4" in succeeds("train", "--resume", "--out", str(interrupted))
    assert_same_run(interrupted, uninterrupted)


def test_without_a_run_it_begins(uninterrupted: Path, tmp_path: Path) -> None:
    """With the consent of `auto`, so that a mistyped name starts no run of many epochs."""
    arguments = train(tmp_path / "run", "--epochs", str(EPOCHS), "--resume")
    line = fails(2, *arguments)
    assert "run holds no run; give" in line and "--resume auto" in line
    assert not (tmp_path / "run").exists()
    succeeds(*arguments, "auto")
    assert_same_run(tmp_path / "run", uninterrupted)
    assert "nothing to do" in succeeds(*arguments, "auto")


@pytest.mark.parametrize("command", ["train --resume --out", "evaluate", "verify"])
def test_a_mistyped_run_is_asked_about(command: str, interrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "shorte").mkdir()  # nearer, but it holds no run
    mistyped = interrupted.with_name("shrote")
    assert f"(did you mean {interrupted}?)" in fails(2, *command.split(), str(mistyped))
    assert not mistyped.exists()


def test_no_interruption_is_seen_in_the_result(uninterrupted: Path, interrupted: Path) -> None:
    """If only the end was lost, resuming rewrites nothing but result.json."""
    succeeds("train", "--resume", "--out", str(interrupted))
    before = contents(interrupted)
    (interrupted / "result.json").unlink()
    succeeds("train", "--resume", "--out", str(interrupted))
    after = contents(interrupted)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"result.json"}
    assert_same_run(interrupted, uninterrupted)


def test_a_finished_run_is_left_alone(uninterrupted: Path) -> None:
    before, when = contents(uninterrupted), uninterrupted.stat().st_mtime_ns
    out = succeeds("train", "--resume", "--out", str(uninterrupted))
    assert "finished" in out and out.count("\n") == 1
    out = succeeds(*train(uninterrupted, "--epochs", str(EPOCHS), "--resume"))
    assert "finished" in out and out.count("\n") == 1
    assert contents(uninterrupted) == before and uninterrupted.stat().st_mtime_ns == when


# Refusals name the difference and touch nothing


@pytest.mark.parametrize(
    ("flag", "value", "was"),
    [
        ("--model", "lenet-swish", "keras-cnn"),
        ("--dataset", "kmnist", "fashion_mnist"),
        ("--dropout-rate", "0.4", "0.5"),
        ("--batch-size", "64", "32"),
        ("--learning-rate", "0.002", "0.001"),
        ("--seed", "1", "0"),
        ("--epochs", "1", "2"),
    ],
)
def test_another_configuration_is_refused(flag: str, value: str, was: str, interrupted: Path) -> None:
    before = contents(interrupted)
    line = fails(2, "train", "--resume", "--out", str(interrupted), flag, value)
    assert flag in line and value in line and was in line
    assert contents(interrupted) == before


def test_other_data_are_refused(interrupted: Path, tmp_path: Path) -> None:
    directory = tmp_path / "idx"
    directory.mkdir()
    train_set, test_set = idx.unpack({file: idx.read(path) for file, path in idx.find(TINY).items()})
    train_set.labels[0] = (train_set.labels[0] + 1) % 10
    for file, raw in idx.pack(train_set, test_set).items():
        (directory / file).write_bytes(raw)
    before = contents(interrupted)
    line = fails(1, "train", "--resume", "--out", str(interrupted), "--data-dir", str(directory))
    assert "train-labels-idx1-ubyte" in line
    assert contents(interrupted) == before


def test_another_mask_scheme_is_refused(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "MASK_SCHEME", MASK_SCHEME + 1)
    line = fails(1, "train", "--resume", "--out", str(interrupted))
    assert f"mask scheme {MASK_SCHEME}" in line and f"mask scheme {MASK_SCHEME + 1}" in line


def test_other_settings_of_jax_are_refused(interrupted: Path) -> None:
    jax.config.update("jax_threefry_partitionable", False)
    try:
        line = fails(1, "train", "--resume", "--out", str(interrupted))
    finally:
        jax.config.update("jax_threefry_partitionable", True)
    assert "other settings of JAX (jax_threefry_partitionable)" in line


def test_other_versions_are_mentioned(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == "optax" else version(name))
    assert "optax 99 (was " in succeeds("train", "--resume", "--out", str(interrupted), "--epochs", "2")


# config.json


def test_a_lost_configuration_is_in_the_checkpoint(uninterrupted: Path, interrupted: Path) -> None:
    (interrupted / "config.json").write_text("{")
    out = succeeds("train", "--resume", "--out", str(interrupted), "--epochs", str(EPOCHS))
    assert "config.json is damaged" in out and "epoch-2" in out
    assert_same_run(interrupted, uninterrupted)


@pytest.mark.parametrize("command", ["train --resume --out", "evaluate", "predict", "export", "report"])
def test_an_edited_configuration_is_refused(command: str, interrupted: Path) -> None:
    path = interrupted / "config.json"
    path.write_text(path.read_text().replace('"pixel_scale": 1.0', '"pixel_scale": 255.0'))
    before = contents(interrupted)
    line = fails(1, *command.split(), str(interrupted))
    assert "config.json" in line and "pixel_scale is 255.0, and was 1.0" in line and "epoch-2" in line
    assert contents(interrupted) == before


def test_edited_epochs_are_refused_where_the_schedule_depends_on_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    succeeds(*train(out, "--epochs", "2", "--schedule", "cosine"))
    record = json.loads((out / "config.json").read_text())
    for epochs in (1, 3):
        (out / "config.json").write_text(json.dumps(record | {"epochs": epochs}))
        text = f"epochs is {epochs}, and was 2, which the schedule depends on; put that back"
        assert text in main("verify", str(out)).out
        assert text in fails(1, "train", "--resume", "--out", str(out))
    (out / "config.json").write_text(json.dumps(record))
    assert "finished after 2 epochs" in succeeds("verify", str(out))


def test_settings_are_read_from_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(LARGEST_RECORD + 1)
    for path in (tmp_path / "large.toml", tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        line = fails(2, "train", "--config", str(path))
        assert f"--config {path}: it is not a file of at most 1,000,000,000 bytes" in line
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert "cannot read --config" in fails(2, "train", "--config", str(tmp_path / "deep.json"))


def test_a_removed_configuration_is_written_again(uninterrupted: Path, interrupted: Path) -> None:
    (interrupted / "config.json").unlink()
    succeeds("train", "--resume", "--out", str(interrupted), "--epochs", str(EPOCHS))
    assert_same_run(interrupted, uninterrupted)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
RECORD = resumption.config_record(TrainConfig(dataset="fashion_mnist"), TINY)
DAMAGED = st.one_of(
    st.binary(max_size=50),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.tuples(st.sampled_from(sorted(RECORD)), JSON).map(
        lambda change: json.dumps(RECORD | {change[0]: change[1]}).encode()
    ),
    st.integers(0, 200).map(lambda end: json.dumps(RECORD).encode()[:end]),
    st.just(b"[" * 100_000),
    st.sets(st.sampled_from(sorted(RECORD))).map(
        lambda names: json.dumps({name: RECORD[name] for name in names}).encode()
    ),
)


@given(DAMAGED)
def test_any_damage_to_the_configuration_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    out = tmp_path_factory.mktemp("damaged")
    (out / "config.json").write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", lambda *_, **__: {})
        ended = main("train", "--resume", "--out", str(out))
    assert ended.code in (0, 1, 2) and ended.err.count("\n") == (ended.code != 0), ended
    assert "--debug" not in ended.err, ended
    assert (out / "config.json").read_bytes() == raw


# Checkpoints


@given(st.dictionaries(st.integers(1, 30), st.sampled_from([0.1, 0.2, 0.3]), min_size=1))
def test_the_best_and_the_last_two_are_kept(val_loss: dict[int, float]) -> None:
    kept = checkpoints.kept(list(val_loss), val_loss)
    ordered = sorted(val_loss)
    assert kept == {*ordered[-2:], min(ordered, key=lambda epoch: val_loss[epoch])}


def test_checkpoints_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 0.1, 0.4, 0.3, 0.2])
    change_rows(monkeypatch, lambda row: row | {"val_loss": next(losses)})
    succeeds(*train(tmp_path / "run", "--epochs", "5"))
    assert _names(tmp_path / "run") == {"epoch-2", "epoch-4", "epoch-5"}


def test_checkpoints_now_and_then(tmp_path: Path) -> None:
    succeeds(*train(tmp_path / "run", "--epochs", "5", "--checkpoint-every", "3"))
    assert _names(tmp_path / "run") == {"epoch-3", "epoch-5"}


def test_an_interrupt_saves_the_last_finished_epoch(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def stop(row: dict[str, float]) -> dict[str, float]:
        if row["epoch"] == 4:
            raise KeyboardInterrupt
        return row

    with monkeypatch.context() as patch:
        change_rows(patch, stop)
        ended = main(*train(out, "--epochs", str(EPOCHS), "--checkpoint-every", "10"))
    assert ended.code == 130 and ended.err.count("\n") == 1
    assert "3 of 4 epochs saved" in ended.err and f"train --resume --out {out}" in ended.err
    assert _names(out) == {"epoch-3"} and len(history(out)) == 4
    succeeds("train", "--resume", "--out", str(out))
    assert_same_run(out, uninterrupted)


def test_restoring_is_the_inverse_of_saving(tmp_path: Path) -> None:
    state, manifest = _state(), _manifest(1)
    checkpoints.save(tmp_path, checkpoints.host_tree(state), manifest)
    saved = checkpoints.newest(tmp_path, print)
    assert saved is not None and saved.manifest._replace(files={}) == manifest
    like = jax.tree.map(jnp.zeros_like, state._replace(key=None))._replace(key=jax.random.key(9))
    back = checkpoints.restore(saved.path, like)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for leaf, same in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert leaf.aval == same.aval
        assert (jax.random.key_data(leaf) if leaf is back.key else leaf).tolist() == (
            jax.random.key_data(same) if same is state.key else same
        ).tolist()


def test_a_host_tree_outlives_the_state() -> None:
    state = _state()
    tree = checkpoints.host_tree(state)
    before = jax.tree.map(np.copy, tree)
    jax.jit(lambda s: s._replace(params=jax.tree.map(lambda p: p + 1, s.params)), donate_argnums=0)(state)
    jax.tree.map(np.testing.assert_array_equal, tree, before)


PATHS = [
    b"[a]",
    b"a[!b]c",
    b"a\\b",
    b"a b",
    b"* ?",
    b"gs:",
    b"a%41#",
    b"{a,b}",
    b"a\nb",
    "\u65e5e\u0301".encode(),
    b"\xff\xfe",
]


@pytest.mark.parametrize("name", PATHS, ids=repr)
def test_what_is_saved_can_be_read_whatever_its_path_is(name: bytes, tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(name) / "checkpoints"
    directory.parent.mkdir()
    tree = {"params": {"w": np.array([1, 2, np.nan], np.float32)}, "step": np.array(3)}
    checkpoints.save(directory, tree, _manifest(1))
    for read in (arrays.read, partial(arrays.read_as, like=tree)):
        found = read(directory / "epoch-1")
        jax.tree.map(np.testing.assert_array_equal, found, tree)
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [name], "nothing is written elsewhere"
    assert [path.name for path in directory.iterdir()] == ["epoch-1"]


def test_a_run_in_brackets_goes_on_and_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "[t]"))
    (tmp_path / "[t]").mkdir()
    succeeds(*train(Path("[a]"), "--epochs", "1"))
    succeeds("evaluate", "[a]")
    succeeds("train", "--resume", "--out", "[a]", "--epochs", "2")
    assert result(Path("[a]"))["epochs"] == 2


def test_a_checkpoint_that_reads_back_differently_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {"w": np.zeros(2, np.float32)}
    checkpoints.save(tmp_path, tree, _manifest(1))
    before = contents(tmp_path)
    monkeypatch.setattr(arrays, "read", lambda _: {"w": np.array([0, -0.0], np.float32)})
    with pytest.raises(UserError, match="epoch-1: read back, it differs"):
        checkpoints.save(tmp_path, tree, _manifest(1))
    assert contents(tmp_path) == before


def _names(out: Path) -> set[str]:
    return {path.name for path in (out / "checkpoints").iterdir()}


def _state() -> TrainState:
    hparams = jax.tree.map(jnp.float32, TrainConfig().hparams)
    task = Task(MODELS["lenet-swish"], keras_adam)
    make = jax.jit(lambda keys: init_state(task, keys, (28, 28, 1), hparams))
    return make(streams(jax.random.key(3)))


def _manifest(epochs: int) -> Manifest:
    columns = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")
    rows = [{"epoch": epoch, **dict.fromkeys(columns, 1 / 3)} for epoch in range(1, epochs + 1)]
    return Manifest(RECORD, {"name": "x", "sha256": {}}, {"jax": "1"}, {"count": 1}, 1, 2.5, rows, {})
