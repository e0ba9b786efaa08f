"""What `experiments/inverted_dropout.py` measures: pure functions of trained networks, keys and masks.

Networks are parameter trees with a leading axis of seeds; `seeds` is u32[seeds], the root keys' numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cnnjax.batches import Batch, take_batch
from cnnjax.dropout import DROPOUT, classic_dropout
from cnnjax.keys import Streams, example_blocks, streams
from cnnjax.metrics import means, metric_sums
from cnnjax.state import Params
from cnnjax.stats.intervals import t_interval
from cnnjax.train import Arrays
from inverted.key_figures import Level

FORMS = {"masks only": ("classic", False), "classic": ("classic", True), "inverted": ("inverted", True)}
"""How a form of dropout acts in training, and whether it is applied at test at all."""
NEVER_TRAINED = 2**30
"""Steps from here on are used for averaging alone: no network was trained with their masks."""
DEVICES = 8
MISTAKE = "8 devices, the same key on each, jax.random.bernoulli"


class Activations(NamedTuple):
    """Means over all units and images of what the layer after dropout receives."""

    training: dict[str, np.ndarray]  # f32[seeds, masks]
    test: dict[str, np.ndarray]  # f32[seeds]


class Averages(NamedTuple):
    """Test loss (nats) and error (fraction) of averages over k networks, and of weight scaling."""

    loss: Any  # f32[seeds, k]
    error: Any  # f32[seeds, k]
    scaled_loss: Any  # f32[seeds]
    scaled_error: Any  # f32[seeds]


def all_of(data: Arrays) -> Batch:
    """A whole data set as one batch."""
    return take_batch(data.images, data.labels, jnp.arange(data.labels.shape[0]))


def mask_key(seed: jax.Array | int, step: jax.Array | int, site: int = 0) -> jax.Array:
    """The key of the masks of a step at a dropout site."""
    stream = streams(jax.random.key(seed)).dropout
    return jax.random.fold_in(jax.random.fold_in(stream, step), site)


def activations(
    model: nn.Module, networks: Params, seeds: jax.Array, images: jax.Array, rate: float, masks: int
) -> Activations:
    """Mean activations of networks under each of `FORMS`, in training for `masks` masks and at test.

    `model` drops once, in the inverted form, whose output at test is what enters it.
    """

    def one(member: tuple[jax.Array, Params]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        seed, params = member
        asked = {"capture_intermediates": True, "mutable": ["intermediates"]}
        captured: Any = model.apply({"params": params}, images, **asked)[1]
        entering: jax.Array = captured["intermediates"]["Dropout_0"]["__call__"][0]
        keys = jax.vmap(partial(mask_key, seed))(NEVER_TRAINED + jnp.arange(masks))
        training, test = {}, {}
        for form, (kind, at_test) in FORMS.items():
            drop = partial(DROPOUT[kind], x=entering, rate=rate)
            training[form] = jax.lax.map(lambda key, drop=drop: jnp.mean(drop(key)), keys)
            test[form] = jnp.mean(drop(keys[0], deterministic=True) if at_test else entering)
        return training, test

    found = jax.device_get(jax.jit(partial(jax.lax.map, one))((seeds, networks)))
    # Trees come back with their names sorted.
    return Activations(*({form: part[form] for form in FORMS} for part in found))


@partial(jax.jit, static_argnames=("model", "train"))
def logits(
    model: nn.Module, networks: Params, seeds: jax.Array, images: jax.Array, rate: jax.Array, train: bool
) -> jax.Array:
    """Logits f32[seeds, n, classes]; in training mode with the masks of each seed's step 0."""

    def one(member: tuple[jax.Array, Params]) -> jax.Array:
        seed, params = member
        key = jax.random.fold_in(streams(jax.random.key(seed)).dropout, 0)
        found: Any = model.apply({"params": params}, images, train, rate, key)
        return found

    return jax.lax.map(one, (seeds, networks))


def averages(
    model: nn.Module, networks: Params, seeds: jax.Array, data: Arrays, rate: float, count: int
) -> Averages:
    """Average the class probabilities of 1, 2, ... `count` sampled networks; an image has its own masks."""
    images, labels, weight = all_of(data)

    def score(probability: jax.Array) -> tuple[jax.Array, jax.Array]:
        true = jnp.take_along_axis(probability, labels[:, None], axis=1)[:, 0]
        loss = -jnp.log(jnp.maximum(true, jnp.finfo(true.dtype).tiny))
        scored = means(metric_sums(probability, labels, loss, weight))
        return scored["loss"], 1 - scored["accuracy"]

    def one(member: tuple[jax.Array, Params]) -> Averages:
        seed, params = member
        stream = streams(jax.random.key(seed)).dropout

        def classes(train: bool, key: jax.Array | None = None) -> jax.Array:
            found: Any = model.apply({"params": params}, images, train, rate, key)
            return jax.nn.softmax(found)

        def sample(step: jax.Array) -> jax.Array:
            return classes(True, jax.random.fold_in(stream, step))

        # Under vmap, the convolution of the images is computed once for all masks: so five at a time.
        samples = jax.lax.map(sample, NEVER_TRAINED + jnp.arange(count), batch_size=min(5, count))
        k = jnp.arange(1, count + 1, dtype=jnp.float32)[:, None, None]
        scaled_loss, scaled_error = score(classes(False))
        loss, error = jax.vmap(score)(jnp.cumsum(samples, axis=0) / k)
        return Averages(loss, error, scaled_loss, scaled_error)

    return jax.device_get(jax.jit(partial(jax.lax.map, one))((seeds, networks)))


def largest_difference(a: Any, b: Any) -> float:
    """Over all entries of two trees."""
    gaps = jax.tree.map(lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)))), a, b)
    return max(jax.tree.leaves(gaps))


def meeting(curve: np.ndarray, line: np.ndarray) -> tuple[int | None, int | None]:
    """The first k whose 95% interval of curve[seeds, k] - line[seeds] holds 0, and that from which all do."""
    mean, half, _ = t_interval(curve - line[:, None], axis=0)
    holds = np.abs(mean) <= half
    from_here_on = np.cumprod(holds[::-1])[::-1]
    first, always = (int(np.argmax(held)) + 1 if held.any() else None for held in (holds, from_here_on))
    return first, always


def batch_masks(seed: int, step: int, shape: tuple[int, ...], rate: float) -> dict[str, np.ndarray]:
    """One batch's masks bool[n, elements] on one device, on eight in three ways, and by a common mistake."""
    devices = jax.devices("cpu")[:DEVICES]
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    with jax.default_device(devices[0]):
        key, ones = mask_key(seed, step), jnp.ones(shape)
    mask = partial(classic_dropout, rate=rate)

    def part(key: jax.Array, x: jax.Array) -> jax.Array:
        return mask(key, x, first_example=jax.lax.axis_index("data") * x.shape[0])

    def mistaken(key: jax.Array, x: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, 1 - rate, x.shape).astype(x.dtype)

    def mapped(function: Callable[..., jax.Array]) -> jax.Array:
        over = jax.shard_map(function, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
        return jax.jit(over)(key, ones)

    sharded = jax.device_put(ones, NamedSharding(mesh, P("data")))
    parts = ones.reshape(DEVICES, -1, *shape[1:])
    found = {
        "1 device": jax.jit(mask)(key, ones),
        "8 devices, sharded jit": jax.jit(mask)(jax.device_put(key, NamedSharding(mesh, P())), sharded),
        "8 devices, shard_map": mapped(part),
        "8 devices, pmap": jax.pmap(part, "data", in_axes=(None, 0), devices=devices)(key, parts),
        MISTAKE: mapped(mistaken),
    }
    return {name: np.asarray(kept).reshape(shape[0], -1) > 0 for name, kept in found.items()}


def key_tree(seed: int, step: int, mask: np.ndarray, examples: int = 4) -> list[Level]:
    """The keys from a seed to the first examples' `mask` bool[n, elements], with their siblings, in hex."""
    root = jax.random.key(seed)
    names = streams(root)
    numbers = range(step, step + 4)
    steps = [jax.random.fold_in(names.dropout, number) for number in numbers]
    sites = [jax.random.fold_in(steps[0], site) for site in range(2)]
    words = np.concatenate(example_blocks(sites[0], jnp.arange(examples, dtype=jnp.uint32), 1)).T
    return [
        Level("jax.random.key(seed)", [(f"seed {seed}", _hex(jax.random.key_data(root)))], 0),
        _keys("split: a run's streams", list(Streams._fields), list(names), 2),
        _keys("fold_in(step)", [f"step {number}" for number in numbers], steps, 0),
        _keys("fold_in(dropout site)", [f"site {site}" for site in range(2)], sites, 0),
        Level(
            "threefry(example, block):\nwords, two elements each,\nand what they keep (black)",
            [
                (
                    f"example {i}",
                    f"{_hex(words[i])}\n{''.join('□■'[kept] for kept in mask[i, :4].tolist())} ...",
                )
                for i in range(examples)
            ],
            None,
        ),
    ]


def _keys(derivation: str, names: list[str], keys: list[jax.Array], chosen: int) -> Level:
    words = [_hex(jax.random.key_data(key)) for key in keys]
    return Level(derivation, list(zip(names, words, strict=True)), chosen)


def _hex(words: Any) -> str:
    return " ".join(f"{int(word):08x}" for word in words)
