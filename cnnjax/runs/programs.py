"""The compiled programs of one run: built once, and queued an epoch at a time."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data import Dataset
from cnnjax.devices.layouts import Layout, one_device
from cnnjax.keys import StreamSeeds, run_streams
from cnnjax.metrics import MetricSums, means
from cnnjax.runs import building
from cnnjax.runs.building import NAMED, Custom
from cnnjax.runs.train_config import TrainConfig
from cnnjax.shapes import Float32, Int
from cnnjax.state import TrainState
from cnnjax.task import HParams, Task
from cnnjax.train import Arrays, evaluate, make_eval_step, make_training, to_device

SEGMENTS = 20
"""Parts in which an epoch is handed to the device at most, so that its progress can be seen."""
PAUSES = (1e-4, 5e-3)
"""Seconds between two looks at whether the device is done: the first and the longest, each twice the last."""


class Progress(Protocol):
    """A function that is called as the device finishes the parts of an epoch."""

    def __call__(self, epoch: int, done: int, parts: int, running: Mapping[str, float]) -> None:
        """Epochs and parts count from 1; `running` has the mean loss and accuracy over the parts done."""
        ...


class EpochEnd(NamedTuple):
    """What is known after an epoch."""

    row: dict[str, float]  # a row of history.csv
    state: TrainState  # on the device; donated to the next epoch, so copy what is to be kept


class Evaluation(NamedTuple):
    """A whole split under one set of parameters."""

    loss: float  # mean, nats
    accuracy: float  # fraction
    logits: Float32[np.ndarray, "n classes"]


@dataclass(frozen=True)
class Program:
    """The compiled programs of one configuration and one data set."""

    start: TrainState
    plan: Callable[[int], list[jax.Array]]  # the parts of an epoch's index plan
    epoch: Callable[..., tuple[TrainState, MetricSums]]
    evaluate: Callable[[TrainState, Arrays], tuple[MetricSums, Any]]  # on one device with logits
    layout: Layout
    train: Arrays
    val: Arrays
    compile_seconds: float


def build(
    config: TrainConfig, train: Dataset, val: Dataset, layout: Layout | None = None, custom: Custom = NAMED
) -> Program:
    """Compile a run before its first step, so that compiling and training are timed apart.

    On one device unless `layout` says otherwise.
    """
    began = time.perf_counter()
    layout = layout or one_device()
    hparams = jax.tree.map(jnp.float32, building.hparams(config, custom))
    keys = run_streams(config.seed, StreamSeeds(config.init_seed, config.order_seed, config.mask_seed))
    examples, image_shape = len(train.labels), train.images.shape[1:]
    steps = -(-examples // config.batch_size)
    trained = building.task(config, train.classes, config.epochs * steps, custom)
    run = make_training(trained, image_shape, examples, config.batch_size, layout.axis_name)
    pairs = ((part.images, part.labels) for part in (train, val))
    train_arrays, val_arrays = (Arrays(*layout.replicate(pair)) for pair in pairs)
    shared = layout.replicate(hparams)
    parts = max(n for n in range(1, SEGMENTS + 1) if steps % n == 0)

    @jax.jit
    def plan(number: jax.Array) -> list[jax.Array]:
        return jnp.split(run.plan(keys.shuffle, number), parts)

    def compiled(program: Any, *arguments: Any) -> Callable[..., Any]:
        return program.lower(*arguments).compile(compiler_options=dict(layout.options) or None)

    state = layout.replicate(jax.jit(run.init)(keys, hparams))
    first = layout.divide(plan(jnp.int32(0))[0])
    epoch = compiled(layout.epoch(run.epoch), state, train_arrays, first, shared)
    validate = compiled(layout.evaluation(run.evaluate), state, val_arrays, shared)
    return Program(
        start=state,
        plan=lambda number: list(map(layout.divide, plan(jnp.int32(number)))),
        epoch=lambda state, part: epoch(state, train_arrays, part, shared),
        evaluate=lambda state, data: validate(state, data, shared),
        layout=layout,
        train=train_arrays,
        val=val_arrays,
        compile_seconds=time.perf_counter() - began,
    )


def epochs(
    program: Program, state: TrainState, numbers: Iterable[int], progress: Progress | None = None
) -> Iterator[EpochEnd]:
    """Train for the epochs of these numbers (the first of a run is 0), yielding after each one.

    The host queues a whole epoch and its validation without waiting, and fetches all metrics at once.

    Args:
        program: compiled for the run.
        state: where the first of these epochs begins; donated.
        numbers: consecutive.
        progress: called as the device gets on within an epoch.
    """
    for number in numbers:
        began = time.perf_counter()
        sums = []
        for part in program.plan(number):
            state, part_sums = program.epoch(state, part)
            sums.append(part_sums)
        val_sums, _ = program.evaluate(state, program.val)
        _watch(number + 1, sums, progress)
        fetched, val_fetched = jax.device_get((sums, val_sums))
        training, validation = _means(fetched), means(val_fetched)
        yield EpochEnd(
            {
                "epoch": number + 1,
                **training,
                "val_loss": float(validation["loss"]),
                "val_accuracy": float(validation["accuracy"]),
                "seconds": time.perf_counter() - began,
            },
            state,
        )


def finite(row: Mapping[str, float]) -> bool:
    """Whether an epoch's losses are; if not, training diverged."""
    return math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])


def evaluate_on(task: Task, state: TrainState, hparams: HParams, dataset: Dataset) -> Evaluation:
    """Compute loss, accuracy and logits over a whole data set."""
    evaluation = jax.jit(partial(evaluate, make_eval_step(task)))
    sums, logits = jax.device_get(evaluation(state, to_device(dataset), hparams))
    metrics = means(sums)
    return Evaluation(float(metrics["loss"]), float(metrics["accuracy"]), logits)


def confusion(
    labels: Int[np.ndarray, " n"], logits: Float32[np.ndarray, "n classes"]
) -> Int[np.ndarray, "classes classes"]:
    """Count images by true class (row) and predicted class (column)."""
    classes = logits.shape[1]
    pairs = labels.astype(np.int64) * classes + np.argmax(logits, axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _means(sums: Sequence[MetricSums]) -> dict[str, float]:
    """Return mean loss and accuracy over the parts of an epoch."""
    added = jax.tree.map(lambda *leaves: np.sum(leaves, dtype=np.float64), *sums)
    return {name: float(value) for name, value in means(added).items()}


def _watch(epoch: int, sums: list[Any], progress: Progress | None) -> None:
    """Report the parts as the device finishes them.

    Asking again and again instead of waiting also lets Ctrl-C through: a wait inside JAX would hold it back
    until the epoch ends.
    """
    done, (pause, longest) = 0, PAUSES
    while done < len(sums):
        if sums[done].loss.is_ready():
            done += 1
            if progress is not None:
                progress(epoch, done, len(sums), _means(jax.device_get(sums[:done])))
        else:
            time.sleep(pause)
            pause = min(2 * pause, longest)
