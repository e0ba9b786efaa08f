"""How fast is the device: epochs beside the peers, populations, and the fraction of what it can do."""

import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from statistics import median
from typing import Any, TypeVar

from ceilings.measurements import (
    Ceilings,
    least_seconds,
    memory_timer,
    population_timer,
    product_timers,
    step_timer,
)
from costs import step_cost
from peers.protocol import Arrays, Peer, Settings

from cnnjax.config import HParams
from cnnjax.devices.layouts import one_device
from cnnjax.models import MODELS
from cnnjax.optimizers import keras_adam
from cnnjax.task import Task

RATE = 0.5
HPARAMS = HParams(1e-3, RATE)
MEMBER_BATCH = 32
MODEL = "keras-cnn"
Build = Callable[[Settings, Arrays], Peer]
T = TypeVar("T")


def within(seconds: float, items: Iterable[T]) -> Iterator[T]:
    """Yield items until the time is over; whoever asks for the next one after that gets none."""
    end = time.monotonic() + seconds
    for item in items:
        if time.monotonic() > end:
            return
        yield item


def builders() -> dict[str, Build]:
    """Return how the peers that can be imported here build a network on the default device."""
    scripts = {"cnnjax": "cnnjax_peer", "plain Flax": "flax_peer"}
    if importlib.util.find_spec("torch"):
        scripts["PyTorch"] = "torch_peer"
    return {name: importlib.import_module(script).build for name, script in scripts.items()}


def epochs(arrays: Arrays, batches: Sequence[int], rounds: int, seconds: float) -> dict[str, Any]:
    """Train an epoch of each network at each batch size, cnnjax and its peers in turn; median seconds."""
    found = {}
    for batch, model in within(seconds, product(batches, MODELS)):
        settings = Settings(model, batch, RATE, False, 0)
        peers = {name: build(settings, arrays) for name, build in builders().items()}
        times = {name: [] for name in peers}
        for number in range(1 + rounds):  # the first round compiles, and does not count
            for name, peer in peers.items():
                began = time.perf_counter()
                peer.train_epoch()
                times[name] += [time.perf_counter() - began] * (number > 0)
        found[f"{model}, batch {batch}"] = {name: median(each) for name, each in times.items()}
    return {"seconds per epoch": found}


def populations(members: Sequence[int], rounds: int, seconds: float) -> dict[str, Any]:
    """Time networks in one program, `vmap` in chunks of several sizes; a chunk of 1 is `lax.map` alone.

    Milliseconds per step and network, batch 32; the best chunk for each number of networks.
    """
    found: dict[str, dict[str, float]] = {}
    sizes = [(count, chunk) for count in members for chunk in chunks(count)]
    for count, chunk in within(seconds, sizes):
        timer = population_timer(MODELS[MODEL], count, MEMBER_BATCH, chunk, HPARAMS)
        each = median(timer(1) for _ in range(rounds)) / count
        found.setdefault(str(count), {})[str(chunk)] = 1e3 * each
    best = {count: min(by_chunk, key=by_chunk.__getitem__) for count, by_chunk in found.items()}
    alone = found[str(members[0])]["1"]
    return {
        "milliseconds per step and network, by networks and chunk": found,
        "best chunk": best,
        "time of all, in times of one": {
            count: int(count) * found[count][chunk] / alone for count, chunk in best.items()
        },
    }


def chunks(members: int) -> list[int]:
    """Return the chunks to try for a number of networks: all of them, ..., 10 and 1, the slowest last."""
    return sorted({10**i for i in range(len(str(members)))} | {members}, reverse=True)


def ceiling(batches: Sequence[int], rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the device's best rates, and the fraction of them that a training step reaches."""
    products, memory = product_timers("float32"), memory_timer()
    best = Ceilings(
        max(each.amount / min(each.timer(1) for _ in range(rounds)) for each in products.values()),
        memory.amount / min(memory.timer(1) for _ in range(rounds)),
    )
    fractions = {}
    for batch, (name, model) in within(seconds, product(batches, MODELS.items())):
        timer = step_timer(Task(model, keras_adam), batch, one_device(), HPARAMS)
        step = median(timer(1) for _ in range(rounds))
        fractions[f"{name}, batch {batch}"] = least_seconds(step_cost(model, batch), best) / step
    return {
        "matrix products, TFLOP/s": best.flops / 1e12,
        "memory, GB/s": best.bandwidth / 1e9,
        "fraction reached": fractions,
    }
