"""Laws of single lines that no larger test observes."""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY

from cnnjax.config import HParams
from cnnjax.data import from_arrays, tfds_store
from cnnjax.deploy import predict
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, Protocol, Splits, engine, identity
from cnnjax.experiment.protocol import divide
from cnnjax.experiment.results import Store
from cnnjax.metrics import MetricSums
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.population import EpochSums, PopulationProgram
from cnnjax.runs import checkpoints
from cnnjax.runs.manifest import Manifest
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import evaluation_state
from cnnjax.task import Task

IMAGES, LABELS = np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 2
LOADED = from_arrays(IMAGES, LABELS, IMAGES[:4], LABELS[:4])
SPLITS = Splits(LOADED.train, LOADED.test, LOADED.test, {"file": "1"})
ARM = Arm("a", ConvNet(features=(2,), hidden=()), HParams(1e-3, 0.5))


def test_an_experiment_is_known_by_its_files_and_its_mask_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(splits: Splits) -> set[str]:
        now = identity.identity([ARM], Protocol(), splits)
        return {name for name in was.keys() | now.keys() if was.get(name) != now.get(name)}

    was = identity.identity([ARM], Protocol(), SPLITS)
    other = Splits(SPLITS.train, SPLITS.val, SPLITS.test, {"file": "2"})
    assert changed(SPLITS) == set() and changed(other) == {"data"}
    monkeypatch.setattr(identity, "MASK_SCHEME", 99)
    assert changed(SPLITS) == {"mask_scheme"}


@pytest.mark.parametrize("part", EpochSums._fields)
def test_any_sum_that_is_not_finite_stops_an_experiment(part: str, tmp_path: Path) -> None:
    ones: Any = MetricSums(*jnp.ones((3, 8), jnp.float32))
    bad = ones._replace(loss=ones.loss.at[1].set(jnp.nan))
    sums: Any = EpochSums(ones, ones, ones)._replace(**{part: bad})
    population: Any = {"x": np.zeros(2)}
    program = PopulationProgram(
        start=lambda *_: population,
        epoch=lambda *_: (population, sums),
        evaluate=lambda *_: (ones, jnp.zeros(2)),
    )
    store = Store(tmp_path, {"epochs": 2})
    steps = engine._train_block(program, [(ARM, 0), (ARM, 1)], 2, {}, store, "stop", None)
    with pytest.raises(UserError, match="the loss of a, seed 1, is not finite in epoch 1"):
        next(steps)
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize("end", [2, 40, 300, -1, -30, -200])
def test_a_truncated_state_starts_its_members_again(end: int, tmp_path: Path) -> None:
    store, members, state = Store(tmp_path, {}), [("a", 0)], {"x": np.arange(100.0, dtype=np.float32)}
    store.save(state, members, 3)
    path = tmp_path / "state.npz"
    path.write_bytes(path.read_bytes()[:end])
    assert store.restore(state, members) == (state, 0)


def test_sampled_masks_differ_between_the_batches_of_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvNet(features=(2,), hidden=(4,), classes=2)
    images = np.full((8, 4, 4, 1), 200, np.uint8)
    data = LOADED.test._replace(images=images, labels=np.zeros(8, np.int32))
    params = jax.jit(model.init)(jax.random.key(0), images / np.float32(255))["params"]
    config, task = TrainConfig(dropout_rate=0.5), Task(model, keras_adam)
    state = evaluation_state(params)
    network = predict.Trained(config, None, task, config.hparams, state, [], 1, (4, 4, 1), ("0", "1"))
    whole = predict.sampled(network, data, masks=2).mean
    assert len(np.unique(whole[:, 0])) > 4
    monkeypatch.setattr(predict, "EVAL_BATCH", 4)
    np.testing.assert_allclose(predict.sampled(network, data, masks=2).mean, whole, atol=1e-6)


@pytest.mark.skipif(sys.platform == "darwin", reason="/proc says which file a handle is of")
def test_a_checkpoint_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def replaced(old: Any, new: Any) -> None:
        events.append(("replace", Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    row: dict[str, float] = dict.fromkeys(
        ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"), 1.0
    )
    manifest = Manifest({}, {"sha256": {}}, {}, {}, 2, 0.0, [row], {})
    checkpoints.save(tmp_path / "checkpoints", {"w": np.zeros(3, np.float32)}, manifest)
    at = events.index(("replace", "epoch-1"))
    before = {name for what, name in events[:at] if what == "fsync"}
    assert {path.name for path in (tmp_path / "checkpoints" / "epoch-1").rglob("*")} <= before
    assert ("fsync", "checkpoints") in events[at:]


def test_only_array_record_is_read_without_tensorflow(tmp_path: Path) -> None:
    for text, readable in (('{"fileFormat": "array_record"}', True), ('{"fileFormat": "tfrecord"}', False)):
        (tmp_path / "dataset_info.json").write_text(text)
        assert tfds_store.is_array_record(tmp_path) is readable
    assert not tfds_store.is_array_record(TINY)


def test_a_training_set_may_be_used_up_to_its_last_image() -> None:
    parts = divide(LOADED, Protocol(train_size=16, batch_size=16))
    assert len(parts.train.labels) == 16
    for wrong in (Protocol(train_size=17, batch_size=1), Protocol(batch_size=17)):
        with pytest.raises(ArgumentError):
            divide(LOADED, wrong)
