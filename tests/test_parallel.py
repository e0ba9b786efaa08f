"""A run on many devices is the run on one: same batches, same masks, and sums in another order.

Each of the 15 steps below reorders sums of 32 float32 terms, an error of a few 2^-24 each, which Adam passes
on to the next step; 1e-4 of a loss is far above what that becomes, and far below what one wrong mask or a
batch out of place does: they change the third digit.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, fails, new_process, train

from cnnjax.batches import shuffled_plan
from cnnjax.config import HParams
from cnnjax.data import Dataset, load, split
from cnnjax.devices import layouts
from cnnjax.devices.layouts import Mapper
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.runs import programs
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state
from cnnjax.train import Arrays, evaluate, make_eval_step, make_train_step, train_epoch

CONFIG = TrainConfig(model="lenet-swish", dropout_rate=0.4, epochs=3)
Rows = list[dict[str, float]]

pytestmark = pytest.mark.devices


@pytest.fixture(scope="module")
def sets() -> tuple[Dataset, Dataset]:
    loaded = load("fashion_mnist", TINY, announce=lambda _: None)
    return split(loaded.train)


@pytest.fixture(scope="module")
def trained(sets: tuple[Dataset, Dataset]) -> Callable[..., Rows]:
    @cache
    def run(devices: int, by: Mapper = "jit", seed: int = 0) -> Rows:
        program = programs.build(replace(CONFIG, seed=seed), *sets, layouts.layout(devices, by))
        assert program.layout.size == devices
        rows = [end.row for end in programs.epochs(program, program.start, range(CONFIG.epochs))]
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    return run


def assert_same(rows: Rows, others: Rows) -> None:
    for ours, theirs in zip(rows, others, strict=True):
        for name, value in ours.items():
            # An image whose two likeliest classes are equal to the last digits may change sides.
            relative, absolute = (0, 1.1 / 40) if "accuracy" in name else (1e-4, 0)
            np.testing.assert_allclose(value, theirs[name], relative, absolute, err_msg=name)


@pytest.mark.parametrize("devices", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 8))])
def test_the_history_does_not_depend_on_the_number_of_devices(
    devices: int, trained: Callable[..., Rows]
) -> None:
    assert_same(trained(devices), trained(1))


@pytest.mark.slow
def test_the_tolerance_has_teeth(trained: Callable[..., Rows]) -> None:
    with pytest.raises(AssertionError):
        assert_same(trained(1, seed=1), trained(1))


def test_pmap_gives_what_jit_gives_bit_for_bit(trained: Callable[..., Rows]) -> None:
    assert trained(4, "pmap") == trained(4)


def collectives(program: jax.stages.Compiled) -> list[str]:
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
    return re.findall(rf" ({kinds})(?:-start)?\(", program.as_text() or "")


@pytest.mark.parametrize("by", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_devices_exchange_nothing_but_one_sum_a_step(by: Mapper) -> None:
    """Above all not the patches of the convolution, which are larger than everything else."""
    model, layout = ConvNet(features=(2, 3), hidden=(4,), dropout_sites="blocks"), layouts.layout(4, by)
    hparams, task = jax.tree.map(jnp.float32, HParams(1e-3, 0.5)), Task(model, keras_adam)
    keys = streams(jax.random.key(0))
    state = layout.replicate(jax.jit(lambda: init_state(task, keys, (12, 12, 1), hparams))())
    data = layout.replicate(Arrays(jnp.zeros((40, 12, 12, 1), jnp.uint8), jnp.zeros(40, jnp.int32)))
    plan = layout.divide(shuffled_plan(keys.shuffle, 40, 16))
    epoch = layout.epoch(partial(train_epoch, make_train_step(task, layout.axis_name)))
    assert collectives(epoch.lower(state, data, plan, layout.replicate(hparams)).compile()) == ["all-reduce"]
    share = partial(evaluate, make_eval_step(task), axis_name=layouts.AXIS)
    assert collectives(layout.evaluation(share).lower(state, data, layout.replicate(hparams)).compile()) == [
        "all-reduce"
    ]


@pytest.mark.parametrize("examples", [1, 3, 7, 501, 1300])
def test_a_shared_evaluation_sees_every_example_once(examples: int) -> None:
    layout = layouts.layout(4)
    pixels = np.random.default_rng(0).integers(0, 256, (examples, 2, 2, 1), np.uint8)
    data = Arrays(jnp.asarray(pixels), jnp.ones(examples, jnp.int32))
    keys = streams(jax.random.key(0))
    state = TrainState(jnp.int32(0), jnp.eye(3), (), keys.dropout)
    sums, _ = layout.evaluation(
        lambda state, data: evaluate(
            lambda state, batch, hparams: (
                programs.MetricSums(
                    jnp.sum(state.params[0, 0] * batch.weight * batch.images[:, 0, 0, 0].astype(jnp.float32))
                    / 255,
                    jnp.sum(batch.weight * batch.labels.astype(jnp.float32)),
                    jnp.sum(batch.weight),
                ),
                batch.weight,
            ),
            state,
            data,
            HParams(),
            axis_name=layouts.AXIS,
        )
    )(layout.replicate(state), layout.replicate(data))
    assert (sums.correct, sums.examples) == (examples, examples)
    np.testing.assert_allclose(sums.loss, pixels[:, 0, 0, 0].astype(np.float64).sum() / 255, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--devices", "3"), "give a multiple of 3, or 2 devices"),
        (("--devices", "4", "--batch-size", "30"), "give a multiple of 4, or 3 devices"),
        (("--devices", "9", "--batch-size", "9"), "more than there are: 8"),
        (("--devices", "1000000"), "more than there are: 8"),
        (("--devices", "0"), "--devices 0 must be at least 1"),
        (("--devices", "two"), "two"),
        (("--parallel", "xmap"), "pmap"),
    ],
)
def test_devices_that_cannot_be_had_are_one_line(
    flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    assert message in fails(2, *train(tmp_path / "run", *flags))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cpu_is_as_many_devices_as_are_asked_for(tmp_path: Path) -> None:
    ended = new_process(*train(tmp_path / "run", "--devices", "2", "--epochs", "1"))
    assert ended.code == 0 and "to validate on 2 x cpu" in ended.out, ended
