"""Times that can be compared: in launches, and in rounds in which everything takes its turn.

The unit is the launch of a process: rounds of one process share its compilation and its place in memory, so
they say little about the next.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.batches import sequential_plan
from cnnjax.data import Dataset, subset
from cnnjax.experiment import Arm, use_every_core
from cnnjax.keys import streams
from cnnjax.shapes import Float
from cnnjax.state import TrainState, evaluation_state
from cnnjax.task import HParams, MakeOptimizer, Task, init_state
from cnnjax.train import Arrays, make_training, to_device

LAUNCHES, STEPS = 5, 50
Measured = TypeVar("Measured")


def launched(measure: Callable[..., Measured], launches: Sequence[tuple[Any, ...]]) -> Iterator[Measured]:
    """Call `measure` with the arguments of each launch, each in a new process, one after the other."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for arguments in launches:
            yield pool.submit(measure, *arguments).result()


def time_in_rounds(timers: Sequence[Callable[[int], Any]], rounds: int) -> np.ndarray:
    """Call every timer once a round, with the number of the round, and return [timers, rounds, ...].

    Each round starts with another timer, so that background load affects all of them alike.
    """
    times = [[None] * rounds for _ in timers]
    for number in range(rounds):
        for turn in range(len(timers)):
            index = (number + turn) % len(timers)
            times[index][number] = timers[index](number)
    return np.array(times, float)


def milliseconds_per_step(
    models: Sequence[tuple[nn.Module, HParams]],
    make_optimizer: MakeOptimizer,
    train: Arrays,
    *,
    batch_size: int = 32,
    steps: int = STEPS,
    rounds: int = 9,
) -> Float[np.ndarray, "models"]:
    """Return the median time of a training step of each model on one device.

    One timing is of `steps` steps; `time_in_rounds` says in which order. The first call of each model, which
    compiles, is excluded.
    """
    plan = sequential_plan(min(steps * batch_size, train.labels.shape[0]), batch_size)

    def timer(model: nn.Module, hparams: HParams) -> Callable[[int], float]:
        traced = jax.tree.map(jnp.float32, hparams)
        task = Task(model, make_optimizer)
        training = make_training(task, train.images.shape[1:], train.labels.shape[0], batch_size)
        run = partial(jax.jit(training.epoch), some_state(task, train, traced), train, plan, traced)
        jax.block_until_ready(run())

        def milliseconds(_: int) -> float:
            began = time.perf_counter()
            jax.block_until_ready(run())
            return 1000 * (time.perf_counter() - began) / len(plan)

        return milliseconds

    return np.median(time_in_rounds([timer(*each) for each in models], rounds), axis=1)


def milliseconds_by_launch(
    arms: Callable[[], Sequence[Arm]],
    make_optimizer: MakeOptimizer,
    train: Dataset,
    *,
    batch_size: int = 32,
    launches: int = LAUNCHES,
) -> Float[np.ndarray, "arms launches"]:
    """Measure `milliseconds_per_step` in several new processes, each of which compiles anew.

    Args:
        arms: makes the arms in each process; models with Flax's activations cannot be sent there.
        make_optimizer: of all arms.
        train: images and labels, of which only as many are used as the steps need.
        batch_size: examples a step.
        launches: number of processes.
    """
    few = subset(train, STEPS * batch_size)
    arguments = (arms, make_optimizer, few, batch_size)
    return np.transpose(list(launched(_milliseconds, [arguments] * launches)))


def launch_range(milliseconds: Float[np.ndarray, "launches"], digits: int) -> str:
    """Format the median over launches, with the least and the greatest if there are several."""
    middle = f"{np.median(milliseconds):.{digits}f}"
    if len(milliseconds) == 1:
        return middle
    return f"{middle} ({np.min(milliseconds):.{digits}f} to {np.max(milliseconds):.{digits}f})"


def some_state(task: Task, data: Arrays, hparams: HParams) -> TrainState:
    """Return a state with random weights, which saves the seconds it takes to compile the initialisers."""
    init = partial(init_state, task, streams(jax.random.key(0)), data.images.shape[1:], hparams)
    shapes, rng = jax.eval_shape(init).params, np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype), shapes)
    return evaluation_state(params)._replace(opt_state=task.optimizer(hparams).init(params))


def _milliseconds(
    arms: Callable[[], Sequence[Arm]],
    make_optimizer: MakeOptimizer,
    train: Dataset,
    batch_size: int,
) -> Float[np.ndarray, "arms"]:
    """Measure in a process of its own; the one that waits for it may hold most of a GPU's memory."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    use_every_core()
    models = [(arm.model, arm.hparams) for arm in arms()]
    return milliseconds_per_step(models, make_optimizer, to_device(train), batch_size=batch_size)
