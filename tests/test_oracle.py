"""One NumPy oracle for what the parts make together: masks, gradients, optimizers, an experiment's rows.

It computes in float64 and shares no code with the library. From JAX it takes keys (`key`, `split`,
`fold_in`), permutations and the initial weights; the random words behind a mask are its own threefry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from cnnjax import dropout, experiment
from cnnjax.config import HParams
from cnnjax.data import Dataset, subset
from cnnjax.experiment import Arm, Protocol, Splits
from cnnjax.kernels import dropout as fast
from cnnjax.keys import Masks, streams, uniform_bits
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.population import make_population, stack
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state
from cnnjax.train import to_device

Tree = dict[str, dict[str, np.ndarray]]
FEATURES, HIDDEN, CLASSES, SIDE, BATCH = (2, 3), 6, 4, 8, 6
UNIT = 2**30
METRICS = "loss", "accuracy"


# Masks


def threefry(key: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two words for each pair of counters."""
    k = [np.uint32(key[0]), np.uint32(key[1])]
    k.append(np.uint32(0x1BD11BDA) ^ k[0] ^ k[1])
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    with np.errstate(over="ignore"):
        x, y = a.astype(np.uint32) + k[0], b.astype(np.uint32) + k[1]
        for group in range(5):
            for turn in rotations[group % 2]:
                x = x + y
                y = x ^ (y << np.uint32(turn) | y >> np.uint32(32 - turn))
            x = x + k[(group + 1) % 3]
            y = y + k[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def numbers(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """The number below 2^30 of each element: 16 bits of its own, above 14 that all elements share."""
    data = np.asarray(jax.random.key_data(key))
    example, j = np.meshgrid(np.arange(shape[0]), np.arange(int(np.prod(shape[1:]))), indexing="ij")
    words = threefry(data, example, j // 4)
    upper = np.where(j % 4 < 2, words[0], words[1]) >> np.where(j % 2, 16, 0).astype(np.uint32) & 0xFFFF
    most = np.array([2**32 - 1])
    shared = int(threefry(data, most, most)[0][0] >> np.uint32(18))
    return (upper.astype(np.int64) * 2**14 + shared).reshape(shape)


def kept(stream: jax.Array, step: int, site: int, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """The mask of site l at a step, whose key is fold_in(fold_in(stream, step), l)."""
    key = jax.random.fold_in(jax.random.fold_in(stream, step), site)
    return numbers(key, shape) >= round(float(np.float32(rate)) * UNIT)


# The network, forward and back


@dataclass
class Oracle:
    """A network with max pooling and relu; `kind` and `sites` of its dropout."""

    kind: str
    sites: str
    rate: float
    backward: list[Callable[[np.ndarray], np.ndarray]] = field(default_factory=list)
    gradient: Tree = field(default_factory=dict)

    def logits(
        self, params: Tree, images: np.ndarray, masks: tuple[jax.Array, int] | None = None
    ) -> np.ndarray:
        """Of uint8 images; in training with `masks`, the dropout stream and the step."""
        self.backward, self.gradient = [], {}
        x = images / 255
        for block in range(len(FEATURES)):
            x = self._pool(self._relu(self._conv(x, f"Conv_{block}", params)))
            if self.sites == "blocks":
                x = self._drop(x, masks, block)
        if self.sites == "flatten":
            x = self._drop(x, masks, 0)
        shape = x.shape
        self.backward.append(lambda g: g.reshape(shape))
        x = self._relu(self._dense(x.reshape(len(x), -1), "Dense_0", params))
        return self._dense(x, "Dense_1", params)

    def gradients(self, g: np.ndarray) -> Tree:
        for step in reversed(self.backward):
            g = step(g)
        return self.gradient

    def _drop(self, x: np.ndarray, masks: tuple[jax.Array, int] | None, site: int) -> np.ndarray:
        if masks is None:
            return x * (1 - self.rate if self.kind == "classic" else 1.0)
        scale = 1 / (1 - self.rate) if self.kind == "inverted" else 1.0
        noise = kept(*masks, site, x.shape, self.rate) * scale
        self.backward.append(lambda g: g * noise)
        return x * noise

    def _relu(self, x: np.ndarray) -> np.ndarray:
        self.backward.append(lambda g: g * (x > 0))
        return np.maximum(x, 0)

    def _dense(self, x: np.ndarray, name: str, params: Tree) -> np.ndarray:
        kernel = params[name]["kernel"]

        def back(g: np.ndarray) -> np.ndarray:
            self.gradient[name] = {"kernel": x.T @ g, "bias": g.sum(0)}
            return g @ kernel.T

        self.backward.append(back)
        return x @ kernel + params[name]["bias"]

    def _conv(self, x: np.ndarray, name: str, params: Tree) -> np.ndarray:
        kernel = params[name]["kernel"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = sliding_window_view(padded, (3, 3), (1, 2))  # n h w in 3 3

        def back(g: np.ndarray) -> np.ndarray:
            self.gradient[name] = {
                "kernel": np.einsum("nhwcij,nhwo->ijco", windows, g),
                "bias": g.sum((0, 1, 2)),
            }
            gx = np.zeros_like(padded)
            for i, j in np.ndindex(3, 3):
                gx[:, i : i + x.shape[1], j : j + x.shape[2]] += g @ kernel[i, j].T
            return gx[:, 1:-1, 1:-1]

        self.backward.append(back)
        return np.einsum("nhwcij,ijco->nhwo", windows, kernel) + params[name]["bias"]

    def _pool(self, x: np.ndarray) -> np.ndarray:
        n, h, w, c = x.shape
        cells = (
            x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, c, 4)
        )
        first = np.eye(4)[cells.argmax(-1)]  # as Keras: the first of equals takes the gradient

        def back(g: np.ndarray) -> np.ndarray:
            spread = (g[..., None] * first).reshape(n, h // 2, w // 2, c, 2, 2)
            return spread.transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)

        self.backward.append(back)
        return cells.max(-1)


def losses(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of each example, and its gradient."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    one_hot = np.eye(logits.shape[1])[labels]
    return -(log_probability * one_hot).sum(1), np.exp(log_probability) - one_hot


# Training


def adam(rate: float) -> Callable[[Tree, Tree], Tree]:
    moments: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    steps = 0

    def update(params: Tree, gradient: Tree) -> Tree:
        nonlocal steps
        steps += 1
        new: Tree = {}
        for layer, parts in params.items():
            for name, value in parts.items():
                g = gradient[layer][name]
                m, v = moments.get((layer, name), (0 * g, 0 * g))
                moments[layer, name] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                size = rate * np.sqrt(1 - 0.999**steps) / (1 - 0.9**steps)
                new.setdefault(layer, {})[name] = value - size * m / (np.sqrt(v) + 1e-7)
        return new

    return update


def descent(rate: float) -> Callable[[Tree, Tree], Tree]:
    def update(params: Tree, gradient: Tree) -> Tree:
        return {
            layer: {name: value - rate * gradient[layer][name] for name, value in parts.items()}
            for layer, parts in params.items()
        }

    return update


def measured(oracle: Oracle, params: Tree, data: Dataset) -> tuple[float, float]:
    logits = oracle.logits(params, data.images)
    loss, _ = losses(logits, data.labels)
    return float(loss.mean()), float((logits.argmax(1) == data.labels).mean())


def epoch(
    oracle: Oracle, params: Tree, update: Callable[[Tree, Tree], Tree], data: Dataset, seed: int, number: int
) -> tuple[Tree, tuple[float, float]]:
    """Train for an epoch: the last batch is smaller, and every batch is measured before its update."""
    _, shuffle, dropout = jax.random.split(jax.random.key(seed), 3)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(shuffle, number), len(data.labels)))
    steps, total, right = -(-len(order) // BATCH), 0.0, 0
    for i in range(steps):
        rows = order[i * BATCH : (i + 1) * BATCH]
        logits = oracle.logits(params, data.images[rows], (dropout, number * steps + i))
        loss, gradient = losses(logits, data.labels[rows])
        total, right = total + loss.sum(), right + int((logits.argmax(1) == data.labels[rows]).sum())
        params = update(params, oracle.gradients(gradient / len(rows)))
    return params, (float(total / len(order)), right / len(order))


def drawn(n: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    images = rng.integers(0, 256, (n, SIDE, SIDE, 1), np.uint8)
    return Dataset(images, labels, tuple("abcd"))


TRAIN, VAL, TEST = drawn(10, 0), drawn(5, 1), drawn(7, 2)


def network(kind: str = "inverted", sites: Any = "flatten") -> ConvNet:
    return ConvNet(features=FEATURES, hidden=(HIDDEN,), classes=CLASSES, dropout=kind, dropout_sites=sites)


@partial(jax.jit, static_argnums=0)
def _start(model: ConvNet, key: jax.Array) -> TrainState:
    return init_state(Task(model, keras_adam), streams(key), (SIDE, SIDE, 1), HParams(0.01, 0.0))


def initial(model: ConvNet, seed: int) -> Tree:
    state = _start(model, jax.random.key(seed))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)


KINDS = [("inverted", "blocks"), ("inverted", "flatten"), ("classic", "blocks"), ("classic", "flatten")]


@pytest.mark.parametrize(("kind", "sites"), KINDS)
def test_the_network_draws_the_mask_of_each_site(kind: str, sites: str) -> None:
    model, params = network(kind, sites), initial(network(), 3)
    stream, rate = jax.random.key(9), np.float32(0.4)
    images = TEST.images / np.float32(255)
    single = jax.tree.map(np.float32, params)
    apply = jax.jit(model.apply, static_argnums=2)
    for step in (0, 5):
        ours = Oracle(kind, sites, float(rate)).logits(params, TEST.images, (stream, step))
        theirs = apply({"params": single}, images, True, rate, Masks(stream, jnp.uint32(step)))
        np.testing.assert_allclose(np.asarray(theirs), ours, atol=2e-5)
    ours = Oracle(kind, sites, float(rate)).logits(params, TEST.images)
    theirs = apply({"params": single}, images, False, rate)
    np.testing.assert_allclose(np.asarray(theirs), ours, atol=2e-5)


def test_masks_to_the_last_bit() -> None:
    """At a rate that is the number of an element, that element is kept, and at the next one it is not."""
    assert dropout.MASK_SCHEME == 2, "and these are its numbers"
    for seed in range(3):
        key, shape = jax.random.key(seed), (4, 501)
        ours = numbers(key, shape)
        np.testing.assert_array_equal(uniform_bits(key, shape), ours)
        least = int(ours.min())  # float32 holds it exactly
        assert 0 < least < 2**24
        for number in (least - 1, least, least + 1):
            rate = jnp.float32(number / UNIT)
            for mask in (dropout.keep_mask, fast.keep_mask):
                np.testing.assert_array_equal(mask(key, shape, rate), ours >= number)


def test_initial_weights_of_seed_0_are_frozen() -> None:
    """They come from the first of the three streams, by Flax's rules for the names of parameters."""
    params = initial(network(), 0)
    sums = {layer: float(np.abs(parts["kernel"]).sum()) for layer, parts in params.items()}
    frozen = {"Conv_0": 4.091202, "Conv_1": 10.134263, "Dense_0": 21.550112, "Dense_1": 7.683875}
    assert sums == pytest.approx(frozen, rel=1e-5)


@pytest.mark.devices
@pytest.mark.slow
def test_two_steps_of_a_population_member() -> None:
    model, rates = network("inverted", "blocks"), (0.25, 0.5)
    hparams = stack([HParams(0.01, rate) for rate in rates] * (jax.device_count() // 2))
    seeds = np.array([1, 2] * (jax.device_count() // 2), np.uint32)
    program = make_population(Task(model, keras_adam), to_device(TRAIN), to_device(VAL), batch_size=BATCH)
    population, sums = program.epoch(program.start(seeds, hparams), 0)
    for member, (seed, rate) in enumerate(zip((1, 2), rates, strict=True)):
        oracle = Oracle("inverted", "blocks", rate)
        params, (loss, accuracy) = epoch(oracle, initial(model, seed), adam(0.01), TRAIN, seed, 0)
        assert float(sums.optimized.loss[member]) == pytest.approx(loss * 10, rel=1e-5)
        assert float(sums.optimized.correct[member]) == accuracy * 10
        theirs = jax.tree.map(lambda leaf, m=member: np.asarray(leaf[m]), population.state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), theirs, params)
        for part, data in ((sums.train, subset(TRAIN, 5)), (sums.val, VAL)):
            assert float(part.loss[member]) == pytest.approx(5 * measured(oracle, params, data)[0], rel=1e-5)


def _rows_of(arm: Arm, make: Callable[[float], Any], seed: int) -> tuple[list[dict[str, float]], np.ndarray]:
    """The rows of one member, and the classes that it predicts for the test images."""
    model: Any = arm.model
    oracle = Oracle(model.dropout, model.dropout_sites, arm.hparams.dropout_rate)
    params, update, rows = initial(model, seed), make(arm.hparams.learning_rate), []
    for number in range(2):
        params, optimized = epoch(oracle, params, update, TRAIN, seed, number)
        parts = {
            "": optimized,
            "train_": measured(oracle, params, subset(TRAIN, 5)),
            "val_": measured(oracle, params, VAL),
        }
        if number:
            parts["test_"] = measured(oracle, params, TEST)
        rows.append({f"{p}{m}": v for p, pair in parts.items() for m, v in zip(METRICS, pair, strict=True)})
    return rows, oracle.logits(params, TEST.images).argmax(1)


def test_the_rows_of_an_experiment(tmp_path: Path) -> None:
    arms: Sequence[tuple[Arm, Callable[[float], Any]]] = [
        (Arm("none", network("inverted", "blocks"), HParams(0.01, 0.0)), adam),
        (Arm("half", network("inverted", "blocks"), HParams(0.02, 0.5)), adam),
        (Arm("classic", network("classic"), HParams(0.1, 0.4), optimizer="sgd"), descent),
    ]
    protocol = Protocol(epochs=2, seeds=2, batch_size=BATCH)
    results = experiment.run([arm for arm, _ in arms], protocol, Splits(TRAIN, VAL, TEST, {}), tmp_path)
    for i, (arm, make) in enumerate(arms):
        for seed in range(2):
            rows, predicted = _rows_of(arm, make, seed)
            for number, row in enumerate(rows):
                theirs = {name: float(results.values[name][i, seed, number]) for name in row}
                assert theirs == pytest.approx(row, rel=2e-4), (arm.name, seed, number)
            np.testing.assert_array_equal(results.predictions[arm.name].labels[seed], predicted)
