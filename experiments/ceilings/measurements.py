"""Measurements of `scaling.py`: step times over batch, devices and population, and the machine's ceilings."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from costs import StepCost
from jax.typing import DTypeLike
from scipy.optimize import nnls
from timing import some_state

from cnnjax.batches import sequential_plan, take
from cnnjax.config import HParams
from cnnjax.devices.layouts import Layout
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.population import make_population, stack
from cnnjax.task import Task, to_unit_interval
from cnnjax.train import Arrays, make_train_step, make_training

SHAPE = (28, 28, 1)
MIN_STEPS = 8
"""Fewest steps in one call of a compiled program, so that the cost of the call hardly counts."""

Timer = Callable[[int], float]  # calls of the compiled program -> seconds a step


class Ceilings(NamedTuple):
    """The best rates of one device."""

    flops: float  # operations a second, in products of square matrices
    bandwidth: float  # bytes a second, reading and writing an array larger than any cache


class Fit(NamedTuple):
    """seconds(batch) = fixed + image * batch."""

    fixed: float
    image: float

    def at(self, batch: float) -> float:
        """Return the fitted seconds a step."""
        return self.fixed + self.image * batch


class Benchmark(NamedTuple):
    """A benchmark of a ceiling, and the work of one call."""

    timer: Timer
    amount: float  # operations or bytes


def product_timers(dtype: DTypeLike) -> dict[str, Benchmark]:
    """Time products of square matrices of several sizes on the first device; `amount` is in operations."""
    sizes = (1024, 2048) if jax.default_backend() == "cpu" else (4096, 8192, 16384)
    multiply = jax.jit(jnp.matmul)

    def timer(size: int) -> Timer:
        a = jnp.full((size, size), 0.5, dtype)
        return _timer(partial(multiply, a, a), 1)

    return {f"product of {size} x {size}": Benchmark(timer(size), 2.0 * size**3) for size in sizes}


def memory_timer() -> Benchmark:
    """Time x + 1 on an array larger than any cache, on the first device; `amount` is in bytes."""
    values = jnp.zeros((1 << 25) if jax.default_backend() == "cpu" else (1 << 28), jnp.float32)
    amount = 2.0 * values.nbytes
    # In place, because allocating pages for a new result would cost more than the traffic.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def call() -> object:
        nonlocal values
        values = add(values)
        return values

    return Benchmark(_timer(call, 1), amount)


def least_seconds(cost: StepCost, best: Ceilings) -> float:
    """Return the least time of a step: that of its products or of its bytes, whichever is longer."""
    return max(cost.flops / best.flops, cost.bytes / best.bandwidth)


def fit(batches: Sequence[int], seconds: Sequence[float]) -> Fit:
    """Fit by least squares of relative errors, with neither part below zero."""
    rows = np.array([[1, batch] for batch in batches]) / np.asarray(seconds)[:, None]
    (fixed, image), _ = nnls(rows, np.ones(len(rows)))
    return Fit(float(fixed), float(image))


def random_images(count: int) -> Arrays:
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    return Arrays(jnp.asarray(images), jnp.asarray(rng.integers(0, 10, count), jnp.int32))


def step_timer(task: Task, batch_size: int, layout: Layout, hparams: HParams) -> Timer:
    """Compile and warm up training steps as `train` runs them on this layout."""
    steps = _steps(batch_size)
    data = random_images(batch_size)
    traced = jax.tree.map(jnp.float32, hparams)
    state = layout.replicate(some_state(task, data, traced))
    plan = layout.divide(_plan(batch_size))
    data, traced = Arrays(*layout.replicate(tuple(data))), layout.replicate(traced)
    run = make_training(task, SHAPE, batch_size, batch_size, layout.axis_name)
    lowered = layout.epoch(run.epoch).lower(state, data, plan, traced)
    compiled = lowered.compile(compiler_options=dict(layout.options) or None)

    def call() -> object:
        nonlocal state
        state, sums = compiled(state, data, plan, traced)
        return sums

    return _timer(call, steps)


def forward_timer(model: ConvNet, batch_size: int) -> Timer:
    """Compile and warm up the forward pass, from pixels to logits without dropout, on one device."""
    data = random_images(batch_size)
    params = some_state(Task(model, keras_adam), data, HParams()).params

    @jax.jit
    def run(params: Any, plan: jax.Array) -> jax.Array:
        def body(total: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
            images = to_unit_interval(take(data.images, data.labels, row).images)
            # Each step depends on the one before; otherwise XLA would compute all of them as one.
            logits = model.apply({"params": params}, images + 0 * total)
            assert isinstance(logits, jax.Array)
            return jnp.sum(logits), None

        return jax.lax.scan(body, jnp.float32(0), plan)[0]

    return _timer(partial(run, params, _plan(batch_size)), _steps(batch_size))


def population_timer(
    model: ConvNet, members: int, batch_size: int, chunk: int | None, hparams: HParams
) -> Timer:
    """Compile and warm up a population as experiments train it; times are for a step of all members."""
    steps = _steps(batch_size)
    data, one = random_images(steps * batch_size), random_images(1)
    program = make_population(Task(model, keras_adam), data, one, batch_size=batch_size, chunk=chunk)
    population = program.start(np.arange(members, dtype=np.uint32), stack([hparams] * members))

    def call() -> object:
        nonlocal population
        population, sums = program.epoch(population, 0)
        return sums

    return _timer(call, steps)


def _steps(batch_size: int) -> int:
    return max(MIN_STEPS, 2048 // batch_size)


def _plan(batch_size: int) -> jax.Array:
    """i32[steps, batch]: the same images in every step."""
    return jnp.tile(sequential_plan(batch_size, batch_size), (_steps(batch_size), 1))


def _timer(call: Callable[[], object], steps: int) -> Timer:
    jax.block_until_ready(call())

    def measure(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(call())
        return (time.perf_counter() - began) / (calls * steps)

    return measure


def counted_by_xla(model: ConvNet, batch_size: int, hparams: HParams) -> StepCost:
    """Return the operations and bytes of one compiled step on one device by XLA's cost analysis."""
    task = Task(model, keras_adam)
    data = random_images(batch_size)
    traced = jax.tree.map(jnp.float32, hparams)
    state = some_state(task, data, traced)
    batch = take(data.images, data.labels, jnp.arange(batch_size))
    analysis = jax.jit(make_train_step(task)).lower(state, batch, traced).compile().cost_analysis()
    return StepCost(int((analysis or {}).get("flops", 0)), int((analysis or {}).get("bytes accessed", 0)))
