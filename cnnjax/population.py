"""Populations: many runs in one compiled program, built from the epoch that a single run uses.

A member is a run with a seed and hyperparameters of its own; members share architecture, data and batch
size, which are static. Members with one seed share initial weights, the batches of every step and the
uniforms behind the masks, whatever their hyperparameters: they are paired.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cnnjax.config import HParams
from cnnjax.devices.layouts import place
from cnnjax.keys import Streams, streams
from cnnjax.metrics import MetricSums
from cnnjax.state import MakeOptimizer, TrainState, init_state
from cnnjax.train import Arrays, epoch_plan, evaluate, make_eval_step, make_train_step, train_epoch


class Population(NamedTuple):
    """Every leaf has a leading axis of members."""

    state: TrainState
    shuffle: jax.Array  # key[members], the shuffle streams
    hparams: HParams


class EpochSums(NamedTuple):
    """What one epoch measures; each leaf f32[members]."""

    optimized: MetricSums  # over the epoch, each batch before its update, dropout on
    train: MetricSums  # after it, on as many training images as validation has, without dropout
    val: MetricSums  # after it, on the validation images


class PopulationProgram(NamedTuple):
    """Compiled on first use, for one number of members, which the number of devices must divide."""

    start: Callable[[Any, HParams], Population]  # (u32[members] seeds, hparams) -> population
    epoch: Callable[[Population, int], tuple[Population, EpochSums]]
    evaluate: Callable[[Population, Arrays], tuple[MetricSums, jax.Array]]


def default_chunk(backend: str) -> int:
    """How many members to `vmap`; the chunks follow one another by `lax.map`.

    On the CPU one: a member's batch fills a core, and `vmap` only makes its arrays leave the cache.
    Elsewhere 64, for one small network leaves most of an accelerator idle.
    """
    return 1 if backend == "cpu" else 64


def make_population(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    train: Arrays,
    val: Arrays,
    *,
    batch_size: int,
    chunk: int | None = None,
) -> PopulationProgram:
    """The programs of a population, its members spread over all devices.

    With `chunk` 1, a member equals the run of its own bit for bit; above 1, to the rounding of matrix
    products whose shapes `vmap` changes.

    Args:
        model: the architecture of all members.
        make_optimizer: builds the optimizer from a member's hyperparameters.
        train: training data, shared; copied to every device.
        val: validation data, likewise.
        batch_size: examples a step, of every member.
        chunk: members to `vmap` at a time; `default_chunk` of the backend unless given. Memory for
            activations grows with it, and not with the population.
    """
    step = make_train_step(model, make_optimizer)
    chunk = chunk or default_chunk(jax.default_backend())
    examples = train.labels.shape[0]
    mesh = jax.make_mesh((jax.device_count(),), ("members",), axis_types=(AxisType.Auto,))
    shape = (1, *train.images.shape[1:])
    train, val = jax.tree.map(partial(place, NamedSharding(mesh, P())), (train, val))

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
        seed, hparams = member
        keys: Streams = streams(jax.random.key(seed))
        state = init_state(model, make_optimizer, keys, jnp.zeros(shape), hparams)
        return Population(state, keys.shuffle, hparams)

    def epoch_one(
        member: Population, number: jax.Array, train: Arrays, val: Arrays
    ) -> tuple[Population, EpochSums]:
        plan = epoch_plan(member.shuffle, number, examples, batch_size)
        state, sums = train_epoch(step, member.state, train, plan, member.hparams)
        seen = Arrays(*(leaf[: val.labels.shape[0]] for leaf in train))
        eval_step = make_eval_step(model, member.hparams.dropout_rate)
        after = [evaluate(eval_step, state.params, data)[0] for data in (seen, val)]
        return member._replace(state=state), EpochSums(sums, *after)

    def evaluate_one(member: Population, data: Arrays) -> tuple[MetricSums, jax.Array]:
        eval_step = make_eval_step(model, member.hparams.dropout_rate)
        return evaluate(eval_step, member.state.params, data)

    # With a device a core, threads inside an operation only wait for each other.
    alone = jax.default_backend() == "cpu" and jax.device_count() > 1
    options = {"xla_cpu_multi_thread_eigen": False} if alone else None
    start = jax.jit(spread(start_one))
    epoch = jax.jit(spread(epoch_one), donate_argnums=0, compiler_options=options)
    evaluation = jax.jit(spread(evaluate_one))
    return PopulationProgram(
        start=lambda seeds, hparams: start((seeds, hparams)),
        epoch=lambda population, number: epoch(population, jnp.int32(number), train, val),
        evaluate=evaluation,
    )


def stack(hparams: Sequence[HParams]) -> HParams:
    """Hyperparameters of members as one tree of f32[members]."""
    return jax.tree.map(lambda *leaves: np.array(leaves, np.float32), *hparams)
