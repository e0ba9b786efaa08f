"""Does the device compute what the CPU computes, and the same every time?"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import dropout
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.kernels.dropout import keep_mask
from cnnjax.keys import streams
from cnnjax.models import MODELS
from cnnjax.optimizers import keras_adam
from cnnjax.state import Params
from cnnjax.task import Task
from cnnjax.train import make_training, to_device

HOLDS = "must hold"
"""Name of the findings that are wrong if they are false."""
TOLERANCE = 1e-3
"""Largest difference after three steps in full float32, see `three_steps`."""
MASK = (32, 14, 14, 10)
RATES = (0.0, 0.1, 0.5, 0.9, 1.0)
BATCH = 32
FULL = "full float32"
DETERMINISTIC: Mapping[str, Any] = {"xla_gpu_deterministic_ops": True}


def masks() -> dict[str, Any]:
    """Compare the device's masks with those that their definition gives on the CPU, bit by bit."""

    def drawn(keep: Any, rate: float) -> np.ndarray:
        return np.asarray(jax.jit(partial(keep, shape=MASK))(jax.random.key(0), rate=jnp.float32(rate)))

    with jax.default_device(jax.devices("cpu")[0]):
        expected = [drawn(dropout.keep_mask, rate) for rate in RATES]
    kinds = {"definition": dropout.keep_mask, "fast form": keep_mask}
    equal = {
        f"masks of the {name} equal the CPU's": all(
            np.array_equal(drawn(keep, rate), mask) for rate, mask in zip(RATES, expected, strict=True)
        )
        for name, keep in kinds.items()
    }
    return {HOLDS: equal}


def three_steps(train: Dataset) -> dict[str, Any]:
    """Train three steps of both networks on the device, in its default precision and in full, and on the CPU.

    A difference is ||device - CPU|| / ||CPU - start|| over all parameters.
    """
    few = train._replace(images=train.images[: 3 * BATCH], labels=train.labels[: 3 * BATCH])
    found: dict[str, Any] = {HOLDS: {}}
    for name in MODELS:
        with jax.default_device(jax.devices("cpu")[0]):
            start, expected = _trained(name, few, 0), _trained(name, few, 3)
        differences = {}
        for label, precision in {"default": None, FULL: "highest"}.items():
            with jax.default_matmul_precision(precision):
                differences[label] = _distance(_trained(name, few, 3), expected) / _distance(expected, start)
        found[f"{name}: difference after 3 steps, by precision"] = differences
        found[HOLDS][f"{name}: at most {TOLERANCE:g} in {FULL}"] = differences[FULL] <= TOLERANCE
    return found


def repetition(train: Dataset, steps: int) -> dict[str, Any]:
    """Compile and train a seed twice, without and with XLA's flag for deterministic operations."""
    same = {}
    for label, options in {"without": {}, "with": DETERMINISTIC}.items():
        one, other = (_trained("keras-cnn", train, steps, options) for _ in range(2))
        same[label] = all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))
    sentence = "the same seed twice, {} the deterministic flag: equal bit for bit"
    return {sentence.format("without"): same["without"], HOLDS: {sentence.format("with"): same["with"]}}


def _trained(name: str, train: Dataset, steps: int, options: Mapping[str, Any] | None = None) -> Params:
    """Return the parameters after so many steps of seed 0, as arrays of NumPy."""
    data, keys = to_device(train), streams(jax.random.key(0))
    hparams = jax.tree.map(jnp.float32, HParams(1e-3, 0.5))
    training = make_training(Task(MODELS[name], keras_adam), data.images.shape[1:], len(data.labels), BATCH)
    state = jax.jit(training.init)(keys, hparams)
    if steps:
        epochs = -(-steps * BATCH // len(data.labels))
        plan = jnp.concatenate([training.plan(keys.shuffle, epoch) for epoch in range(epochs)])[:steps]
        # Compiled anew in every call, as in a new process.
        program = jax.jit(training.epoch).lower(state, data, plan, hparams)
        state, _ = program.compile(dict(options or {}) or None)(state, data, plan, hparams)
    return jax.device_get(state.params)


def _distance(one: Params, other: Params) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(np.sqrt(sum(np.sum((a.astype(float) - b) ** 2) for a, b in pairs)))
