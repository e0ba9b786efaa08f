"""Populations: many runs in one compiled program, built from the epoch that a single run uses.

A member is a run with a seed and hyperparameters of its own; members share architecture, data and batch
size, which are static. Members with one seed share initial weights, the batches of every step and the
uniforms behind the masks, whatever their hyperparameters: they are paired.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cnnjax.config import HParams
from cnnjax.data import Dataset, subset
from cnnjax.devices.layouts import place
from cnnjax.keys import FROM_RUN, StreamSeeds, run_streams
from cnnjax.metrics import MetricSums
from cnnjax.shapes import Array, Key
from cnnjax.state import TrainState
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training, to_device


class Population(NamedTuple):
    """Every leaf has a leading axis of members."""

    state: TrainState
    shuffle: Key[Array, " members"]  # the shuffle streams
    hparams: HParams


class EpochSums(NamedTuple):
    """What one epoch measures; each leaf f32[members]."""

    optimized: MetricSums  # over the epoch, each batch before its update, dropout on
    train: MetricSums  # after it, on a stratified sample of as many training images as validation has
    val: MetricSums  # after it, on the validation images


class PopulationProgram(NamedTuple):
    """Compiled on first use, for one number of members, which the number of devices must divide."""

    start: Callable[[Any, HParams], Population]  # (u32[members] seeds, hparams) -> population
    epoch: Callable[[Population, int], tuple[Population, EpochSums]]
    evaluate: Callable[[Population, Arrays], tuple[MetricSums, jax.Array]]


def default_chunk(backend: str) -> int:
    """How many members to `vmap`; the chunks follow one another by `lax.map`.

    On the CPU one: a member's batch fills a core, and `vmap` only makes its arrays leave the cache.
    Elsewhere 100: on an H200, each then takes about a tenth of its time alone (experiments/accelerator.py).
    """
    return 1 if backend == "cpu" else 100


def make_population(
    task: Task,
    train: Arrays,
    val: Arrays,
    *,
    batch_size: int,
    chunk: int | None = None,
    own: StreamSeeds = FROM_RUN,
) -> PopulationProgram:
    """The programs of a population, its members spread over all devices.

    With `chunk` 1, a member equals the run of its own bit for bit; above 1, to the rounding of matrix
    products whose shapes `vmap` changes.

    Args:
        task: what all members train.
        train: training data, shared; copied to every device.
        val: validation data, likewise.
        batch_size: examples a step, of every member.
        chunk: members to `vmap` at a time; `default_chunk` of the backend unless given. Memory for
            activations grows with it, and not with the population.
        own: seeds of streams that are the same in all members.
    """
    chunk = chunk or default_chunk(jax.default_backend())
    run = make_training(task, train.images.shape[1:], train.labels.shape[0], batch_size)
    mesh = jax.make_mesh((jax.device_count(),), ("members",), axis_types=(AxisType.Auto,))
    # The first images would not do: in data that are sorted, they are of one class.
    whole = Dataset(np.asarray(train.images), np.asarray(train.labels))
    measured = to_device(subset(whole, len(val.labels)))
    train, measured, val = jax.tree.map(partial(place, NamedSharding(mesh, P())), (train, measured, val))

    def spread(one: Callable[..., Any]) -> Callable[..., Any]:
        """Map `one(member, *shared)` over the members: a part of them on each device, chunk by chunk."""

        def part(members: Any, *shared: Any) -> Any:
            mapped = partial(jax.lax.map, batch_size=None if chunk == 1 else chunk)
            return mapped(lambda member: one(member, *shared), members)

        def whole(members: Any, *shared: Any) -> Any:
            specs = (P("members"), *(P() for _ in shared))
            sharded = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=P("members"), check_vma=False)
            return sharded(members, *shared)

        return whole

    def start_one(member: tuple[jax.Array, HParams]) -> Population:
        keys = run_streams(member[0], own)
        return Population(run.init(keys, member[1]), keys.shuffle, member[1])

    def epoch_one(
        member: Population, number: jax.Array, train: Arrays, measured: Arrays, val: Arrays
    ) -> tuple[Population, EpochSums]:
        state, sums = run.epoch(member.state, train, run.plan(member.shuffle, number), member.hparams)
        after = [run.evaluate(state, data, member.hparams)[0] for data in (measured, val)]
        return member._replace(state=state), EpochSums(sums, *after)

    def evaluate_one(member: Population, data: Arrays) -> tuple[MetricSums, jax.Array | None]:
        return run.evaluate(member.state, data, member.hparams)

    # With a device a core, threads inside an operation only wait for each other.
    alone = jax.default_backend() == "cpu" and jax.device_count() > 1
    options = {"xla_cpu_multi_thread_eigen": False} if alone else None
    start = jax.jit(spread(start_one))
    epoch = jax.jit(spread(epoch_one), donate_argnums=0, compiler_options=options)
    evaluation = jax.jit(spread(evaluate_one))
    return PopulationProgram(
        start=lambda seeds, hparams: start((seeds, hparams)),
        epoch=lambda population, number: epoch(population, jnp.int32(number), train, measured, val),
        evaluate=evaluation,
    )


def stack(hparams: Sequence[HParams]) -> HParams:
    """Hyperparameters of members as one tree of f32[members]."""
    return jax.tree.map(lambda *leaves: np.array(leaves, np.float32), *hparams)
