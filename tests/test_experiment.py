"""Experiments do not recompute results on disk, and resuming gives the results of an uninterrupted run."""

import contextlib
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import ROOT, TINY, contents, environment

from cnnjax import experiment
from cnnjax.config import HParams
from cnnjax.data import Dataset, Loaded
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, OnNan, Protocol, Splits, checks, engine, environments, verification
from cnnjax.experiment.identity import arm_identity
from cnnjax.experiment.protocol import divide
from cnnjax.experiment.results import WRITTEN, Results, Store
from cnnjax.experiment.rows import CHECKSUMS, read_rows, write_rows
from cnnjax.files import circumstances, claimed, write_json
from cnnjax.keys import Masks
from cnnjax.models import MODELS, ConvNet
from cnnjax.runs import building
from cnnjax.stats import conclusion, summarise
from cnnjax.stats.confusion import Predictions
from cnnjax.task import reads_rate

MODEL = ConvNet(features=(2,), hidden=(4,))
ARMS = [Arm(f"rate {rate:g}", MODEL, HParams(1e-2, rate)) for rate in (0.0, 0.5)]
PROTOCOL = Protocol(epochs=2, seeds=5, batch_size=8)


def dataset(n: int) -> Dataset:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Dataset(images, rng.integers(0, 10, n).astype(np.int32))


SPLITS = Splits(dataset(24), dataset(8), dataset(9), {"file": "sum"})


class Stop(Exception):
    """Stands for a kill of the process."""


@contextlib.contextmanager
def stopped_after(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop when a file of this name is in its place."""
    move = os.replace

    def stop(source: str, target: Path) -> None:
        move(source, target)
        if Path(target).name == name:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(os, "replace", stop)
        yield


def run(
    out: Path,
    protocol: Protocol = PROTOCOL,
    arms: list[Arm] = ARMS,
    stop_after: int = 10**9,
    on_nan: OnNan = "stop",
) -> Results:
    calls = 0

    def report(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise Stop

    return experiment.run(arms, protocol, SPLITS, out, on_nan=on_nan, report=report)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


def test_results_hold_every_arm_seed_and_epoch(whole: Path) -> None:
    results = run(whole)
    assert results.arms == ("rate 0", "rate 0.5")
    for metric, values in results.values.items():
        assert values.shape == (2, 5, 2)
        assert np.isfinite(results.final(metric)).all()
        assert np.isnan(values[:, :, 0]).all() == metric.startswith("test_")
    assert len((whole / "results.csv").read_text().splitlines()) == 1 + 2 * 5 * 2


@pytest.mark.devices
@pytest.mark.parametrize("stop_after", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 3])
def test_an_interrupted_experiment_ends_with_the_same_results(
    stop_after: int, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=stop_after)
    run(tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


@pytest.mark.devices
def test_large_states_are_saved_less_often_and_resume_to_the_same_results(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Store.save
    monkeypatch.setattr(Store, "save", lambda store, *of: (saved.append(of[-1]), save(store, *of)))
    monkeypatch.setattr(engine, "STATE_BYTES", 2**30)
    run(tmp_path / "each")
    assert saved == [1, 2] * (len(saved) // 2)
    saved.clear()
    size = (tmp_path / "each/state.npz").stat().st_size
    monkeypatch.setattr(engine, "STATE_BYTES", size // 2)
    with pytest.raises(Stop):
        run(tmp_path / "few", stop_after=1)
    assert not saved
    run(tmp_path / "few")
    assert set(saved) <= {2}
    for out in ("each", "few"):
        assert (tmp_path / out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


@pytest.mark.parametrize(("members", "width"), [(1, 8), (10, 100), (65, 64), (12, 8), (17, 16)])
def test_blocks_are_no_larger_than_what_is_left_and_alike(members: int, width: int, tmp_path: Path) -> None:
    devices = jax.device_count()
    arms, store = [ARMS[0]], Store(tmp_path, {})
    blocks = list(engine._blocks(arms, range(members), 1, width, store))
    sizes = [len(block) for block in blocks]
    assert [seed for block in blocks for _, seed in block] == list(range(members))
    assert len(blocks) == -(-members // width) and max(sizes) <= width
    assert len(set(sizes[:-1])) <= 1 and max(sizes) - -(-members // len(blocks)) < devices


def test_a_finished_experiment_trains_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_train_block", lambda *_: pytest.fail("trained again"))
    run(whole)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(UserError, match="another process is at work"):
        run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_new_seeds_are_computed(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, Protocol(epochs=2, seeds=1, batch_size=8))
    first = set((tmp_path / "results.csv").read_text().splitlines())
    rows = read_rows(tmp_path / "results.csv")
    rows["rate 0", 0, 1]["loss"] += 90
    write_rows(tmp_path / "results.csv", rows)
    results = run(tmp_path)
    assert results.values["loss"][0, 0, 0] > 90, "what was there was kept, not computed again"
    assert len(first & set((whole / "results.csv").read_text().splitlines())) == len(first)


@pytest.mark.slow
def test_kills_at_random_times(tmp_path: Path) -> None:
    """After repeated SIGKILLs the files are those of an uninterrupted experiment."""
    script = ROOT / "experiments" / "dropout_ablation.py"
    sizes = ("--rates", "0", "0.5", "--seeds", "3", "--epochs", "3", "--dataset", "fashion_mnist")
    command = [sys.executable, str(script), *sizes, "--data-dir", str(TINY), "--out"]
    env = environment(tmp_path / "programs")

    def start(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, str(tmp_path / out)], env=env, stdout=subprocess.DEVNULL)

    def snapshot(out: str) -> set[tuple[Path, int, int]]:
        with contextlib.suppress(FileNotFoundError):  # renamed between its listing and here
            files = [(path, path.stat()) for path in (tmp_path / out).rglob("*")]
            return {(path, status.st_size, status.st_mtime_ns) for path, status in files}
        return set()

    assert start("whole").wait() == 0
    draw, killed = random.Random(0), 0
    for _ in range(10):
        with start("killed") as process:
            # Kill after a number of file changes, which works on slow and fast machines.
            for _ in range(draw.randint(1, 12)):
                before = snapshot("killed")
                while process.poll() is None and snapshot("killed") == before:
                    time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.02))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3
    assert start("killed").wait() == 0
    names = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
    assert names == {path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*")}
    for name in ("results.csv", "summary.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_an_arm_may_be_added(whole: Path, tmp_path: Path) -> None:
    run(tmp_path)
    more = [*ARMS, Arm("wide", ConvNet(features=(3,), hidden=(4,)), HParams(1e-2, 0.0))]
    assert run(tmp_path, arms=more).values["loss"].shape == (3, 5, 2)


def test_lost_predictions_are_made_again(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "lost")
    missing, damaged, *_ = sorted((out / "predictions").iterdir())
    missing.unlink()
    damaged.write_bytes(b"PK")
    assert list(run(out).predictions) == [arm.name for arm in ARMS]
    assert contents(out / "predictions") == contents(whole / "predictions")
    for name in ("results.csv", "checksums.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_another_protocol_is_refused(whole: Path) -> None:
    before = (whole / "results.csv").read_bytes()
    with pytest.raises(ArgumentError, match="batch_size"):
        run(whole, Protocol(epochs=2, seeds=5, batch_size=4))
    with pytest.raises(ArgumentError, match="arm rate 0"):
        run(whole, arms=[Arm("rate 0", MODEL, HParams(1e-3, 0.0))])
    assert (whole / "results.csv").read_bytes() == before


def test_files_of_others_are_refused_and_stay(whole: Path, tmp_path: Path) -> None:
    """Without protocol.json, nothing says that the files are of this experiment."""
    shutil.copytree(whole, tmp_path / "lost")
    (tmp_path / "lost" / "protocol.json").unlink()
    for name in WRITTEN:
        out = tmp_path / f"with {name}"
        out.mkdir()
        (out / name).write_text("my own\n")
    before = contents(tmp_path)
    for out in tmp_path.iterdir():
        name = out.name.removeprefix("with ") if out.name != "lost" else "results.csv"
        with pytest.raises(ArgumentError, match=rf"{out.name} holds {name} and no protocol\.json; choose"):
            run(out)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("last", ["plan.json", "protocol.json", "environments.json"])
def test_what_is_killed_before_its_first_row_starts_again(
    last: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_after(last, monkeypatch):
        run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"plan.json", "protocol.json", "environments.json"}
    run(tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_other_data_and_probes_are_refused_by_name(tmp_path: Path) -> None:
    """Data are what they contain, whatever `Splits.sha256` says."""

    def go(splits: Splits = SPLITS, **probes: Dataset) -> Results:
        protocol = Protocol(epochs=1, seeds=1, batch_size=8)
        return experiment.run(ARMS, protocol, splits, tmp_path, probes=probes)

    probe = dataset(5)
    go(probe=probe)
    before = contents(tmp_path)
    train, turned = SPLITS.train, probe._replace(images=probe.images[:, ::-1])
    relabelled = train._replace(labels=9 - train.labels)
    for name, again in {
        "train arrays": lambda: go(replace(SPLITS, train=relabelled), probe=probe),
        "val arrays": lambda: go(replace(SPLITS, val=dataset(9)), probe=probe),
        "test arrays": lambda: go(replace(SPLITS, test=dataset(8)), probe=probe),
        "probe probe arrays": lambda: go(probe=turned),
        "probes": lambda: go(probe=probe, more=turned),
    }.items():
        with pytest.raises(ArgumentError, match=rf"another protocol \(different: {name}\)"):
            again()
    assert contents(tmp_path) == before
    # An earlier version did not record them.
    record = json.loads((tmp_path / "protocol.json").read_text())
    earlier = {name: value for name, value in record.items() if not name.endswith(("arrays", "probes"))}
    (tmp_path / "protocol.json").write_text(json.dumps(earlier))
    assert np.isfinite(go(probe=probe).final("probe_accuracy")).all()


X, Y = SPLITS.train.images, SPLITS.train.labels


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (X / np.float32(255), Y, "images are float32; give brightness from 0 to 255 as uint8"),
        (X[..., 0], Y, r"shape \(24, 8, 8\); give images\[..., None\]"),
        (X, Y[:-1], "there are 23 of the .* labels for 24 images"),
        (X, Y - 1, "labels contain -1"),
        (X, Y + 1, "labels contain 10; with 10 classes"),
        (X, Y[:, None], r"shape \(24, 1\); give labels\[:, 0\]"),
        (X, np.eye(10, dtype=np.int32)[Y], "one-hot"),
        (X, Y.astype(np.float32), "labels are float32"),
        (X[:0], Y[:0], "without any pixel"),
    ],
)
@pytest.mark.parametrize("part", ["train", "val", "test", "probe"])
def test_wrong_data_are_refused_before_anything_is_written(
    part: str, images: np.ndarray, labels: np.ndarray, message: str, tmp_path: Path
) -> None:
    wrong = Dataset(images, labels)
    splits = SPLITS if part == "probe" else replace(SPLITS, **{part: wrong})
    with pytest.raises(ArgumentError, match=message) as raised:
        experiment.run(
            ARMS, PROTOCOL, splits, tmp_path, probes={"turned": wrong} if part == "probe" else None
        )
    assert {"train": "training", "val": "validation", "probe": "turned"}.get(part, part) in str(raised.value)
    if part in ("train", "test"):
        loaded = Loaded(SPLITS.train, SPLITS.test, "mine", "memory", {})
        with pytest.raises(ArgumentError, match=message):
            divide(loaded._replace(**{part: wrong}), Protocol(batch_size=4))
    assert not list(tmp_path.iterdir())


def test_images_of_another_size_and_unknown_splits_are_refused(tmp_path: Path) -> None:
    small = SPLITS.val._replace(images=SPLITS.val.images[:, :4])
    with pytest.raises(ArgumentError, match="the validation images have shape"):
        experiment.run(ARMS, PROTOCOL, replace(SPLITS, val=small), tmp_path)
    with pytest.raises(ArgumentError, match=r"--train-split All is unknown .*; use one of part, all"):
        Protocol(train_split="All")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["", "train", "val", "test", "x,\ny", "a,b", "a\nb", "\x7f", 3])
def test_probes_whose_columns_are_not_their_own_are_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"^the probe {re.escape(repr(name))} cannot name columns"):
        experiment.run(ARMS, PROTOCOL, SPLITS, tmp_path, probes={name: SPLITS.test})
    assert not list(tmp_path.iterdir())


def test_a_probe_named_training_hides_no_wrong_training_images(tmp_path: Path) -> None:
    wrong = replace(SPLITS, train=Dataset(X, Y - 1))
    with pytest.raises(ArgumentError, match="labels contain -1"):
        experiment.run(ARMS, PROTOCOL, wrong, tmp_path, probes={"training": SPLITS.train})


def test_batches_and_momenta_have_the_bounds_of_a_single_run(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"--batch-size 25 is larger than the training set \(24 images\)"):
        run(tmp_path, replace(PROTOCOL, batch_size=25))
    for momentum in (-0.1, 1.0):
        arm = Arm("a", MODEL, HParams(1e-2, 0.0, momentum=momentum), "sgd")
        with pytest.raises(ArgumentError, match=f"momentum {momentum:g} must be at least 0 and below 1"):
            run(tmp_path, arms=[arm])
    with pytest.raises(ArgumentError, match="learning_rate 0 trains nothing"):
        run(tmp_path, arms=[Arm("a", MODEL, HParams(0.0, 0.0))])
    checks.require_data(SPLITS, {}, 24)
    checks.require_arms([Arm("a", MODEL, HParams(1e-2, 0.0, momentum=0.999), "sgd")], PROTOCOL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "model",
    [
        ConvNet(features=(), hidden=(4,), dropout_sites="blocks"),
        ConvNet(features=(2,), hidden=(4,), dropout="none"),
    ],
)
@pytest.mark.parametrize("rates", [(0.9,), (0.0, 0.5)])
def test_a_rate_that_does_nothing_is_refused(
    model: ConvNet, rates: tuple[float, ...], tmp_path: Path
) -> None:
    arms = [Arm(f"rate {rate}", model, HParams(1e-3, rate)) for rate in rates]
    with pytest.raises(ArgumentError, match=rf"rate {rates[-1]}: the dropout rate {rates[-1]} does nothing"):
        run(tmp_path, arms=arms)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match=r"--dropout-rate 0.9 does nothing with mine: .* no place for it"):
        building.completed({"model": "mine", "dropout_rate": 0.9}, model)
    assert building.completed({"model": "mine"}, model) == {"model": "mine"}


def test_without_convolutions_dropout_is_of_the_pixels() -> None:
    model = ConvNet(features=(), hidden=(4,))
    images = np.ones((8, 5, 5, 1), np.float32)
    params = model.init(jax.random.key(0), images)
    few, many = (
        model.apply(params, images, train=True, dropout_rate=rate, masks=Masks(jax.random.key(1)))
        for rate in (0.0, 0.9)
    )
    assert reads_rate(model) and str(few) != str(many)
    checks.require_arms([Arm(str(r), model, HParams(1e-3, r)) for r in (0.0, 0.9)], PROTOCOL)


@pytest.mark.parametrize(("classes", "dtype"), [(10, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_predictions_count_all_classes(classes: int, dtype: type) -> None:
    logits = np.eye(classes, dtype=np.float32)[None]
    said = Predictions.of(logits)
    np.testing.assert_array_equal(said.labels[0], np.arange(classes))
    assert said.labels.dtype == dtype


@pytest.mark.parametrize(
    ("name", "value"), [("jax_threefry_partitionable", False), ("jax_default_matmul_precision", "bfloat16")]
)
def test_other_settings_of_jax_are_refused(name: str, value: object, whole: Path) -> None:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        with pytest.raises(ArgumentError, match=r"different: jax_settings"):
            run(whole)
    finally:
        jax.config.update(name, before)
    run(whole)


def test_rows_of_other_versions_are_said_with_every_conclusion(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / environments.FILE
    assert json.loads(path.read_text()) == {"environments": [circumstances()]}
    assert run(tmp_path).with_remarks("It helps.") == "It helps."
    earlier = {"jax": "0.1", "numpy": "1"}
    environments.write(tmp_path, [circumstances() | earlier])
    assert run(tmp_path).with_remarks("It helps.") == "It helps.", "nothing was computed under this version"
    results = run(tmp_path, replace(PROTOCOL, seeds=6))
    versions = [f"{name} {was} and {metadata.version(name)}" for name, was in earlier.items()]
    said = f"Rows were computed under {', '.join(versions)}, which may change their last digits."
    assert said in results.with_remarks("It helps.")
    path.write_text("{")
    assert said not in run(tmp_path).with_remarks("It helps.")


def test_processes_with_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process other than 0, where what process 0 sends has other settings."""
    others = {"jax": "0.1", "epochs": 9, "seeds": range(9), "arm rate 0": "another", "arm rate 1": "one more"}
    for name, value in others.items():
        monkeypatch.setattr(engine, "from_leader", lambda here, name=name, value=value: here | {name: value})
        with pytest.raises(UserError, match=f"^{name} is .* in this process and .* in process 0"):
            run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_64_bits_are_refused(whole: Path) -> None:
    with jax.enable_x64(True), pytest.raises(ArgumentError, match="unset JAX_ENABLE_X64"):
        run(whole)


def test_entries_that_earlier_directories_lack_mean_the_defaults(whole: Path) -> None:
    assert not {"schedule", "mask_seed"} & json.loads((whole / "protocol.json").read_text()).keys()
    with pytest.raises(ArgumentError, match="schedule"):
        run(whole, replace(PROTOCOL, schedule="cosine"))
    with pytest.raises(ArgumentError, match="mask_seed"):
        run(whole, replace(PROTOCOL, mask_seed=0))


def test_a_state_with_fewer_hyperparameters_starts_its_members_again(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=3)
    with np.load(tmp_path / "state.npz") as file:
        leaves = [file[name] for name in file.files]
    np.savez(tmp_path / "state.npz", *leaves[:-2])
    run(tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


@pytest.mark.slow
def test_arms_may_differ_in_momentum_if_their_optimizer_reads_it(tmp_path: Path) -> None:
    arms = [Arm(f"momentum {m:g}", MODEL, HParams(1e-2, 0.0, momentum=m)) for m in (0.0, 0.9)]
    with pytest.raises(ArgumentError, match=r"arm momentum 0.9: --momentum 0.9 .* --optimizer sgd"):
        run(tmp_path, arms=arms)
    assert not list(tmp_path.iterdir())
    protocol = replace(PROTOCOL, seeds=4, optimizer="sgd", schedule="cosine", init_seed=7)
    loss = run(tmp_path, protocol, arms).values["val_loss"]
    assert np.all(loss[0] != loss[1]), "both train, in different ways"
    assert "momentum=0.9" in arm_identity(arms[1]) and "momentum" not in arm_identity(arms[0])


def test_a_damaged_table_is_reported(whole: Path, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "results.csv").write_text("arm,seed\nrate 0,x\n")
    with pytest.raises(UserError, match=r"results\.csv is damaged"):
        run(tmp_path)


def test_changed_rows_are_named_and_removed_ones_computed_again(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    table = tmp_path / "results.csv"
    text = table.read_text()
    lines = text.splitlines(keepends=True)
    exchanged = re.sub("rate 0,3,([12])", lambda match: f"rate 0,3,{3 - int(match[1])}", text)
    place = r"results\.csv was changed after it was written, in the row of"
    for damaged, message in {
        text[:-9] + text[-1]: rf"{place} rate 0\.5, seed 4, epoch 2; restore",
        text.replace("rate 0,3,2,", "rate 0,3,2,9", 1): rf"{place} rate 0, seed 3, epoch 2; restore",
        text.replace("rate 0,3,2,", "rate 0,5,2,", 1): rf"{place} rate 0, seed 5, epoch 2; restore",
        text.replace("rate 0,3,2,", "rate 0,3,3,", 1): rf"{place} rate 0, seed 3, epoch 3; restore",
        exchanged: rf"{place} rate 0, seed 3, epoch 2 and 1 more; restore",
        text.replace("train_loss", "trein_loss", 1): rf"{place} rate 0, seed 0, epoch 1 and 19 more",
    }.items():
        table.write_text(damaged)
        with pytest.raises(UserError, match=message):
            run(tmp_path)
        assert table.read_text() == damaged
    first_epochs = [line for line in lines if line.split(",")[1:3] == ["4", "1"]]
    for removed in (first_epochs, lines[3:5], lines[-3:]):
        table.write_text("".join(line for line in lines if line not in removed))
        run(tmp_path)
        assert table.read_text() == text
    (tmp_path / CHECKSUMS).write_text("arm,seed,epoch\n")
    with pytest.raises(UserError, match="in the row of rate 0, seed 0, epoch 1 and 19 more"):
        run(tmp_path)
    (tmp_path / CHECKSUMS).unlink()
    table.write_text(text.replace("rate 0,3,2,", "rate 0,3,2,9", 1))
    with pytest.raises(UserError, match=rf"{CHECKSUMS} is missing; restore it from a copy, or choose"):
        run(tmp_path)


def test_rows_of_an_earlier_version_are_read_and_get_checksums(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    table, text = tmp_path / "results.csv", (tmp_path / "results.csv").read_text()
    for name in (CHECKSUMS, environments.FILE):
        (tmp_path / name).unlink()
    table.write_text(text.replace("rate 0,3,2,", "rate 0,3,2,9", 1))
    assert run(tmp_path).values["loss"][0, 3, 1] > 90 and not (tmp_path / CHECKSUMS).exists()
    with stopped_after(environments.FILE, monkeypatch):
        run(tmp_path, replace(PROTOCOL, seeds=6))
    assert run(tmp_path).values["loss"][0, 3, 1] > 90 and (tmp_path / CHECKSUMS).exists()


@pytest.mark.parametrize("name", ["results.csv", CHECKSUMS, "protocol.json", "looks.csv"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{re.escape(name)} is not a file"):
        run(tmp_path)
    if name != "looks.csv":
        (problem,) = verification.problems(tmp_path)
        assert f"{name} is not a file" in problem.text and not problem.heals


@pytest.mark.parametrize("name", ["seconds.csv", "state.npz", "predictions/rate 0, seed 0.npz"])
def test_a_pipe_counts_as_absent_where_nothing_depends_on_it(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert (run(tmp_path).final("loss") == run(whole).final("loss")).all()


def truncated_deflate(path: Path) -> None:
    """Write an archive whose compressed data end too early, for `zlib.error`."""
    np.savez_compressed(path, labels=np.arange(100))
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)


def unknown_compression(path: Path) -> None:
    """Write an archive of a method that no version knows, for `NotImplementedError`."""
    np.savez_compressed(path, labels=np.arange(100))
    content = path.read_bytes()
    for place in (content.index(b"PK\3\4") + 8, content.index(b"PK\1\2") + 10):
        content = content[:place] + b"\x63\0" + content[place + 2 :]
    path.write_bytes(content)


def cut_archive(path: Path) -> None:
    """Cut the end of an archive, which has its directory, for `zipfile.BadZipFile`."""
    path.write_bytes(path.read_bytes()[:-30])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damages",
    [
        *((empty, truncated_deflate), (unknown_compression, cut_archive)),
        *(
            pytest.param(pair, marks=pytest.mark.slow)
            for pair in ((truncated_deflate, empty), (cut_archive, unknown_compression))
        ),
    ],
)
def test_damaged_archives_count_as_absent(
    damages: tuple[Callable[[Path], None], Callable[[Path], None]], whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    table = tmp_path / "results.csv"
    text = table.read_text()
    table.write_text("".join(text.splitlines(keepends=True)[:-1]))
    for damage, name in zip(damages, ("state.npz", "predictions/rate 0, seed 1.npz"), strict=True):
        damage(tmp_path / name)
    with warnings.catch_warnings(record=True, category=ResourceWarning, action="always") as left_open:
        results = run(tmp_path)
        gc.collect()
    assert not [str(each.message) for each in left_open if str(tmp_path) in str(each.message)]
    assert table.read_text() == text
    assert list(results.predictions) == [arm.name for arm in ARMS], "made again"


def test_a_directory_without_a_probe_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "protocol.json").read_text())
    del record["probes"]  # as before there were any
    write_json(tmp_path / "protocol.json", record)
    with pytest.raises(ArgumentError, match="was computed without the probe turned; choose another --out"):
        experiment.run(ARMS, PROTOCOL, SPLITS, tmp_path, probes={"turned": SPLITS.val})


def test_a_diverged_member_stops_the_experiment_or_is_counted(tmp_path: Path, whole: Path) -> None:
    arms = [*ARMS, Arm("diverges", MODEL, HParams(1e38, 0.0))]
    with pytest.raises(UserError, match=r"diverges, seed 0, is not finite in epoch 1.*--on-nan continue"):
        run(tmp_path, arms=arms)
    results = run(tmp_path, arms=arms, on_nan="continue")
    for metric in results.values:
        assert np.isnan(results.final(metric)[2]).all(), metric
        np.testing.assert_array_equal(results.final(metric)[:2], run(whole).final(metric))
    again = run(tmp_path, arms=arms)
    np.testing.assert_array_equal(again.final("val_loss"), results.final("val_loss"))
    summary = summarise(results.final("val_accuracy"), results.arms)
    assert [arm.diverged for arm in summary.arms] == [0, 0, 5]
    assert "5 diverged runs are excluded; ranked below all others instead, corrected p is" in conclusion(
        summary, "accuracy", accuracy=True
    )
    write_json(tmp_path / "summary.json", summary.as_dict())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"seeds": 0}, {"batch_size": 0}, {"train_size": 0}])
def test_impossible_protocols_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        Protocol(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_train_size_is_stratified_and_fixed() -> None:
    data = Path(__file__).parent / "data"
    protocol = Protocol(dataset="fashion_mnist", train_size=100, batch_size=10)
    splits, again = (experiment.prepare(protocol, data, announce=lambda _: None) for _ in range(2))
    assert splits.train.labels.shape == (100,)
    assert np.bincount(splits.train.labels).min() >= 8
    np.testing.assert_array_equal(splits.train.images, again.train.images)
    with pytest.raises(ArgumentError, match="more than the training split"):
        experiment.prepare(Protocol(dataset="fashion_mnist", train_size=900), data)
    with pytest.raises(ArgumentError, match="larger than the training set"):
        experiment.prepare(Protocol(dataset="fashion_mnist", train_size=100, batch_size=101), data)


def test_arm_identity_matches_existing_directories() -> None:
    """The text is pinned because existing results are recognised by it."""
    first_tutorial = """ConvNet(
    # attributes
    features = (10,)
    kernel_size = 3
    padding = 'SAME'
    activation = relu
    pooling = 'max'
    hidden = (100,)
    classes = 10
    dropout = 'inverted'
    dropout_sites = 'flatten'
    pixel_scale = 1.0
    reference = False
)"""
    hparams = "HParams(learning_rate=0.001, dropout_rate=0.5)"
    arm = Arm("arm", ConvNet(), HParams(1e-3, 0.5))
    assert arm_identity(arm) == f"{first_tutorial} {hparams}"
    other = Arm("arm", ConvNet(dtype="bfloat16"), HParams(1e-3, 0.5), "rmsprop")
    assert arm_identity(other) == f"{first_tutorial} bfloat16 {hparams} rmsprop"
    second_tutorial = arm_identity(Arm("arm", MODELS["lenet-swish"], HParams(1e-3, 0.5)))
    assert "    padding = 'VALID'\n    activation = silu\n" in second_tutorial
