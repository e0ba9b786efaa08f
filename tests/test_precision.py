"""bfloat16 is what is computed in, and nothing that is kept."""

from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, fails, train

from cnnjax.config import HParams
from cnnjax.data import Dataset, load, split
from cnnjax.dropout import DROPOUT
from cnnjax.experiment.identity import identity
from cnnjax.experiment.protocol import Arm, Protocol, Splits
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.pooling import POOLING, PoolingName
from cnnjax.runs import programs
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state
from cnnjax.train import Arrays, make_train_step, train_epoch

HPARAMS = HParams(jnp.float32(1e-3), jnp.float32(0.5))
BFLOAT16 = ConvNet(features=(2, 3), hidden=(4,), dropout_sites="blocks", dtype="bfloat16")


def shape_of_an_epoch(model: ConvNet) -> tuple[TrainState, TrainState, str]:
    """The state before and after, in shapes and dtypes, and the program in between."""
    plan, task = jnp.arange(12).reshape(3, 4), Task(model, keras_adam)
    data = Arrays(jnp.zeros((12, 12, 12, 1), jnp.uint8), jnp.zeros(12, jnp.int32))
    before = jax.eval_shape(lambda: init_state(task, streams(jax.random.key(0)), (12, 12, 1), HPARAMS))
    epoch = partial(train_epoch, make_train_step(task))
    program, (after, _) = jax.make_jaxpr(epoch, return_shape=True)(before, data, plan, HPARAMS)
    return before, after, str(program)


@pytest.mark.parametrize(
    ("pooling", "dropout"), [*((name, "inverted") for name in POOLING), *(("max", kind) for kind in DROPOUT)]
)
def test_parameters_and_optimizer_keep_to_float32(pooling: PoolingName, dropout: str) -> None:
    before, after, program = shape_of_an_epoch(BFLOAT16.clone(pooling=pooling, dropout=dropout))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    kept = jax.tree.leaves((after.params, after.opt_state))
    assert {leaf.dtype for leaf in kept} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    products = [line for line in program.splitlines() if "= dot_general[" in line]
    assert products and all(":bf16[" in line for line in products), products


def test_float32_is_the_default_and_knows_no_bfloat16() -> None:
    assert "bf16" not in shape_of_an_epoch(BFLOAT16.clone(dtype=ConvNet.dtype))[2]
    assert TrainConfig().compute_dtype == ConvNet.dtype == "float32"


@pytest.mark.slow
def test_it_learns_as_float32_does() -> None:
    """8 bits of mantissa are a relative error of 2^-9 an operation: the losses agree to a few per cent."""
    loaded = load("fashion_mnist", TINY, announce=lambda _: None)
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = TrainConfig(model="lenet-swish", epochs=3, compute_dtype=dtype)
        program = programs.build(config, *split(loaded.train))
        ends = list(programs.epochs(program, program.start, range(config.epochs)))
        losses[dtype] = [[end.row["loss"], end.row["val_loss"]] for end in ends]
        leaves = jax.tree.leaves(ends[-1].state.params)
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
    assert np.all(np.diff(losses["bfloat16"], axis=0) < 0)
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)


def test_experiments_tell_the_arms_apart() -> None:
    nothing = Dataset(np.zeros((0, 28, 28, 1), np.uint8), np.zeros(0, np.int32))
    data = Splits(nothing, nothing, nothing, {})
    identities = [
        identity([Arm("arm", ConvNet(dtype=dtype), HPARAMS)], Protocol(), data)
        for dtype in ("float32", "bfloat16")
    ]
    assert identities[0] != identities[1]


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    assert "float32, bfloat16" in fails(2, *train(tmp_path / "run", "--compute-dtype", "float16"))
