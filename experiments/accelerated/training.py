"""Whole runs on the device: what bfloat16 does to accuracy, and the speedrun."""

import importlib
import importlib.util
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import jax
import numpy as np
import recipe
from peers.protocol import Arrays, Settings

from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.metrics import means
from cnnjax.models import MODELS
from cnnjax.optimizers import keras_adam
from cnnjax.population import make_population, stack
from cnnjax.stats.intervals import t_interval
from cnnjax.task import Task
from cnnjax.train import to_device

BATCH = 128
PEER = "train_mnist_fast"


def bfloat16(train: Dataset, val: Dataset, seeds: int, epochs: int) -> dict[str, Any]:
    """Train paired seeds of keras-cnn in float32 and in bfloat16; validation accuracy at the last epoch."""
    accuracy = {}
    for dtype in ("float32", "bfloat16"):
        task = Task(MODELS["keras-cnn"].clone(dtype=dtype), keras_adam)
        program = make_population(task, to_device(train), to_device(val), batch_size=BATCH)
        members = program.start(np.arange(seeds, dtype=np.uint32), stack([HParams(1e-3, 0.5)] * seeds))
        sums = None
        for epoch in range(epochs):
            members, sums = program.epoch(members, epoch)
        assert sums is not None
        accuracy[dtype] = np.asarray(means(jax.device_get(sums.val))["accuracy"], float)
    mean, half, n = t_interval(accuracy["bfloat16"] - accuracy["float32"])
    return {
        "paired seeds": int(n),
        "epochs": epochs,
        "mean accuracy": {dtype: float(values.mean()) for dtype, values in accuracy.items()},
        "bfloat16 minus float32": float(mean),
        "half width of the 95% t interval": float(half) if np.isfinite(half) else None,
    }


def speedrun(train: Dataset, test: Dataset, seeds: Sequence[int]) -> dict[str, Any]:
    """Train the recipe of `speedrun.py`, and the fastest published one in PyTorch where that is installed."""
    program = recipe.compile_run(to_device(train), to_device(test))

    def ours(seed: int) -> tuple[float, float]:
        began = time.perf_counter()
        state = jax.block_until_ready(program.train(seed))
        seconds = time.perf_counter() - began
        return seconds, float(means(program.evaluate(state))["accuracy"])

    sides = {"cnnjax": ours}
    if importlib.util.find_spec("torch"):
        arrays = Arrays(train.images, train.labels, test.images, test.labels)
        build = importlib.import_module("fastest_peer").build
        peer = build(Settings(PEER, 256, 0.0, False, 0), arrays)

        def theirs(seed: int) -> tuple[float, float]:
            del seed  # it draws the next numbers of its own generator
            began = time.perf_counter()
            peer.train_epoch()
            return time.perf_counter() - began, peer.evaluate()

        sides[PEER] = theirs
    found = {}
    for name, run in sides.items():
        run(0)  # warms up, and does not count
        runs = np.array([run(seed) for seed in seeds])
        mean, half, _ = t_interval(runs[:, 1])
        found[name] = {
            "seconds": median(runs[:, 0].tolist()),
            "mean test accuracy": float(mean),
            "half width of the 95% t interval": float(half) if np.isfinite(half) else None,
        }
    return {"runs of each": len(seeds)} | found
