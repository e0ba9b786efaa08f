"""An experiment with networks, hyperparameters and optimizers of the user's own."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from cnnjax import experiment
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm, Protocol, Splits, checks
from cnnjax.experiment.identity import arm_identity, describe


class Own(NamedTuple):
    """Two rates, one of which Flax's dropout does not know."""

    learning_rate: Any = 1e-2
    scale: Any = 1.0


def descent(hparams: Own) -> optax.GradientTransformation:
    return optax.sgd(hparams.learning_rate, momentum=0.9)


class Normalised(nn.Module):
    """BatchNorm and Flax's dropout."""

    features: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, scale: jax.Array) -> jax.Array:
        x = nn.Conv(self.features, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)) * scale
        return nn.Dense(10)(nn.Dropout(0.2, deterministic=not train)(x.reshape(len(x), -1)))


def dataset(n: int) -> Dataset:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 8, 6, 3), dtype=np.uint8)
    return Dataset(images, rng.integers(0, 10, n).astype(np.int32))


SPLITS = Splits(dataset(24), dataset(8), dataset(9), {"file": "sum"})
ARMS = [Arm(f"scale {scale:g}", Normalised(), Own(scale=scale), descent) for scale in (1.0, 2.0)]
PROTOCOL = Protocol(epochs=3, seeds=5, batch_size=8)


class Stop(Exception):
    """Stands for a kill of the process."""


def test_it_trains_and_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of BatchNorm included: without them the epochs after the resume would differ."""
    whole = experiment.run(ARMS, PROTOCOL, SPLITS, tmp_path / "whole")
    monkeypatch.setattr(checks, "require_determined", lambda *_: None)  # it is, and this traces three times
    assert np.isfinite(whole.final("val_loss")).all()
    assert not np.array_equal(whole.final("val_loss")[0], whole.final("val_loss")[1])
    calls = 0

    def stop_in_the_middle(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Stop

    with pytest.raises(Stop):
        experiment.run(ARMS, PROTOCOL, SPLITS, tmp_path / "resumed", report=stop_in_the_middle)
    experiment.run(ARMS, PROTOCOL, SPLITS, tmp_path / "resumed")
    rows = [(tmp_path / name / "results.csv").read_bytes() for name in ("whole", "resumed")]
    assert rows[0] == rows[1]
    with pytest.raises(ArgumentError, match="another protocol"):
        other = [Arm(arm.name, Normalised(features=5), arm.hparams, descent) for arm in ARMS]
        experiment.run(other, PROTOCOL, SPLITS, tmp_path / "whole")


def test_an_identity_is_values_and_source() -> None:
    texts = [
        arm_identity(arm)
        for arm in (
            ARMS[0],
            ARMS[1],
            Arm("arm", Normalised(features=5), Own(), descent),
            Arm("arm", Normalised(), Own(), lambda hparams: optax.sgd(hparams.learning_rate)),
            Arm("arm", Normalised(), Own(), lambda hparams: optax.adam(hparams.learning_rate)),
        )
    ]
    assert len(set(texts)) == 5 and not any("0x" in text for text in texts)
    assert "Normalised #" in texts[0] and "features=5" in texts[2]


def test_partials_are_described_by_their_arguments() -> None:
    one, other = (describe(partial(nn.leaky_relu, negative_slope=slope)) for slope in (0.2, 0.3))
    assert one != other and "0x" not in one


def test_what_has_no_text_of_its_own_is_refused() -> None:
    with pytest.raises(ArgumentError, match="named function or class"):
        describe(object())
