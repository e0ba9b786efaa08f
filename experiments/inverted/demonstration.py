"""Measurements of `inverted_dropout.py`: pure functions of trained networks, keys and masks.

Networks are parameter trees with a leading axis of seeds; `seeds` u32[seeds] make their root keys.
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

from cnnjax.dropout import DROPOUT, classic_dropout
from cnnjax.keys import Masks, Streams, example_words, mask_key, streams
from cnnjax.metrics import means, metric_sums
from cnnjax.state import Params
from cnnjax.stats.intervals import t_interval
from cnnjax.task import to_unit_interval
from cnnjax.train import Arrays
from inverted.key_figures import Level

FORMS = {"masks only": ("classic", False), "classic": ("classic", True), "inverted": ("inverted", True)}
"""The dropout function of each form, and whether it is applied at test."""
UNTRAINED_STEPS = 2**30
"""First of the steps whose masks are used for averaging only, never in training."""
DEVICES = 8
MISTAKE = "8 devices, the same key on each, jax.random.bernoulli"


class Activations(NamedTuple):
    """Means, over all units and images, of the input of the layer after dropout."""

    training: dict[str, np.ndarray]  # f32[seeds, masks]
    test: dict[str, np.ndarray]  # f32[seeds]


class Averages(NamedTuple):
    """Test loss (nats) and error (fraction) of averages over k networks, and of weight scaling."""

    loss: Any  # f32[seeds, k]
    error: Any  # f32[seeds, k]
    scaled_loss: Any  # f32[seeds]
    scaled_error: Any  # f32[seeds]


def activations(
    model: nn.Module, networks: Params, seeds: jax.Array, images: jax.Array, rate: float, masks: int
) -> Activations:
    """Measure mean activations under each of `FORMS`, at test and in training with `masks` masks.

    `model` has one dropout layer, of the inverted form, whose output at test equals its input.
    """

    def one(member: tuple[jax.Array, Params]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        seed, params = member
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        captured: Any = model.apply({"params": params}, images, **options)[1]
        features: jax.Array = captured["intermediates"]["Dropout_0"]["__call__"][0]
        keys = jax.vmap(partial(mask_key, jax.random.key(seed), 0))(UNTRAINED_STEPS + jnp.arange(masks))
        training, test = {}, {}
        for form, (kind, at_test) in FORMS.items():
            drop = partial(DROPOUT[kind], x=features, rate=rate)
            training[form] = jax.lax.map(lambda key, drop=drop: jnp.mean(drop(key)), keys)
            test[form] = jnp.mean(drop(keys[0], deterministic=True) if at_test else features)
        return training, test

    measured = jax.device_get(jax.jit(partial(jax.lax.map, one))((seeds, networks)))
    # JAX sorts the keys of dictionaries.
    return Activations(*({form: values[form] for form in FORMS} for values in measured))


@partial(jax.jit, static_argnames=("model", "train"))
def logits(
    model: nn.Module, networks: Params, seeds: jax.Array, images: jax.Array, rate: jax.Array, train: bool
) -> jax.Array:
    """Return logits f32[seeds, n, classes]; in training mode, with the masks of each seed's step 0."""

    def one(member: tuple[jax.Array, Params]) -> jax.Array:
        seed, params = member
        masks = Masks(streams(jax.random.key(seed)).dropout)
        output: Any = model.apply({"params": params}, images, train, rate, masks)
        return output

    return jax.lax.map(one, (seeds, networks))


def averages(
    model: nn.Module, networks: Params, seeds: jax.Array, data: Arrays, rate: float, count: int
) -> Averages:
    """Average the class probabilities of 1, 2, ... `count` sampled networks, with a mask for each image."""
    images, labels = to_unit_interval(data.images), data.labels
    weight = jnp.ones(len(labels))

    def score(probability: jax.Array) -> tuple[jax.Array, jax.Array]:
        true = jnp.take_along_axis(probability, labels[:, None], axis=1)[:, 0]
        loss = -jnp.log(jnp.maximum(true, jnp.finfo(true.dtype).tiny))
        scored = means(metric_sums(probability, labels, loss, weight))
        return scored["loss"], 1 - scored["accuracy"]

    def one(member: tuple[jax.Array, Params]) -> Averages:
        seed, params = member
        masks = Masks(streams(jax.random.key(seed)).dropout)

        def probabilities(train: bool, masks: Masks | None = None) -> jax.Array:
            output: Any = model.apply({"params": params}, images, train, rate, masks)
            return jax.nn.softmax(output)

        def sample(step: jax.Array) -> jax.Array:
            return probabilities(True, masks._replace(step=step))

        # Five at a time, because vmap then computes the convolution of the images once for all masks.
        samples = jax.lax.map(sample, UNTRAINED_STEPS + jnp.arange(count), batch_size=min(5, count))
        k = jnp.arange(1, count + 1, dtype=jnp.float32)[:, None, None]
        scaled_loss, scaled_error = score(probabilities(False))
        loss, error = jax.vmap(score)(jnp.cumsum(samples, axis=0) / k)
        return Averages(loss, error, scaled_loss, scaled_error)

    return jax.device_get(jax.jit(partial(jax.lax.map, one))((seeds, networks)))


def largest_difference(a: Any, b: Any) -> float:
    """Return the largest absolute difference between the entries of two trees."""
    gaps = jax.tree.map(lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)))), a, b)
    return max(jax.tree.leaves(gaps))


def meeting(curve: np.ndarray, line: np.ndarray, margin: float) -> tuple[int | None, int | None]:
    """Return the first k at which curve[seeds, k] equals line[seeds], and the k from which it always does.

    They are equal to within the margin where two one-sided t tests at 5% say so, that is, where the 90%
    interval of their difference lies inside the margin. More seeds find that earlier, not later.
    """
    mean, half, _ = t_interval(curve - line[:, None], axis=0, level=0.1)
    agree = np.abs(mean) + half < margin
    from_here_on = np.cumprod(agree[::-1])[::-1]
    first, always = (int(np.argmax(holds)) + 1 if holds.any() else None for holds in (agree, from_here_on))
    return first, always


def batch_masks(seed: int, step: int, shape: tuple[int, ...], rate: float) -> dict[str, np.ndarray]:
    """Return one batch's masks bool[n, elements] on 1 device, on 8 in three ways, and by a common error."""
    devices = jax.devices("cpu")[:DEVICES]
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    with jax.default_device(devices[0]):
        key, ones = mask_key(jax.random.key(seed), 0, step), jnp.ones(shape)
    mask = partial(classic_dropout, rate=rate)

    def part(key: jax.Array, x: jax.Array) -> jax.Array:
        return mask(key, x, first_example=jax.lax.axis_index("data") * x.shape[0])

    def mistake(key: jax.Array, x: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, 1 - rate, x.shape).astype(x.dtype)

    def mapped(function: Callable[..., jax.Array]) -> jax.Array:
        over = jax.shard_map(function, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
        return jax.jit(over)(key, ones)

    sharded = jax.device_put(ones, NamedSharding(mesh, P("data")))
    parts = ones.reshape(DEVICES, -1, *shape[1:])
    masks = {
        "1 device": jax.jit(mask)(key, ones),
        "8 devices, sharded jit": jax.jit(mask)(jax.device_put(key, NamedSharding(mesh, P())), sharded),
        "8 devices, shard_map": mapped(part),
        "8 devices, pmap": jax.pmap(part, "data", in_axes=(None, 0), devices=devices)(key, parts),
        MISTAKE: mapped(mistake),
    }
    return {name: np.asarray(kept).reshape(shape[0], -1) > 0 for name, kept in masks.items()}


def key_tree(seed: int, step: int, mask: np.ndarray, examples: int = 4) -> list[Level]:
    """Return the keys (in hex) from a seed to the first rows of `mask` bool[n, elements], with siblings."""
    root = jax.random.key(seed)
    names = streams(root)
    numbers = range(step, step + 4)
    steps = [jax.random.fold_in(names.dropout, number) for number in numbers]
    sites = [mask_key(root, layer, step) for layer in range(2)]
    words = np.concatenate(example_words(sites[0], jnp.arange(examples, dtype=jnp.uint32), 1)).T
    return [
        Level("jax.random.key(seed)", [(f"seed {seed}", _hex(jax.random.key_data(root)))], 0),
        _keys("split: streams of a run", list(Streams._fields), list(names), 2),
        _keys("fold_in(step)", [f"step {number}" for number in numbers], steps, 0),
        _keys("fold_in(dropout layer)", [f"layer {site}" for site in range(2)], sites, 0),
        Level(
            "threefry(example, block):\nwords of two elements each,\nand their mask (black: kept)",
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
