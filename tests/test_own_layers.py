"""Pooling, dropout and activations of the user's own in a `ConvNet`."""

from functools import partial
from pathlib import Path
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import activation as flax_activations
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from cnnjax import experiment
from cnnjax.batches import take
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.deploy.export_onnx import encode
from cnnjax.deploy.layers import layers
from cnnjax.dropout import DROPOUT, as_dropout, inverted_dropout, inverted_noise
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, Protocol, Splits
from cnnjax.experiment.identity import arm_identity
from cnnjax.kernels.layers import Dropout
from cnnjax.keys import Masks, streams
from cnnjax.models import MODELS, ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.population import make_population, stack
from cnnjax.report.html.network import exported
from cnnjax.task import Task, init_state
from cnnjax.train import Arrays, make_train_step, make_training, train_run

SHAPE = (9, 8, 2)
HPARAMS = HParams(jnp.float32(1e-2), jnp.float32(0.4))


def rooms(x: jax.Array, window: int = 2) -> jax.Array:
    """Overlapping windows: another size than the named kinds give."""
    return nn.avg_pool(x, (window, window), (1, 1))


def column_noise(key: jax.Array, shape: tuple[int, ...], rate: jax.Array, first_example: Any) -> jax.Array:
    """Inverted dropout of whole columns."""
    n, _, width, channels = shape
    return jnp.broadcast_to(inverted_noise(key, (n, 1, width, channels), rate, first_example), shape)


drop_columns = as_dropout(column_noise)
OWN = ConvNet(features=(3, 4), hidden=(8,), pooling=rooms, dropout=drop_columns, dropout_sites="blocks")
TASK = Task(OWN, keras_adam)


def arrays(n: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (n, *SHAPE)), rng.integers(0, 10, n)
    return Arrays(jnp.asarray(images, jnp.uint8), jnp.asarray(labels, jnp.int32))


TRAIN, VAL = arrays(16), arrays(6, seed=1)


@pytest.fixture(autouse=True)
def promotion_as_users_have_it() -> Any:
    """nn.avg_pool divides by an integer."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# --- activations -------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Any] = {
    name: function
    for name, function in vars(flax_activations).items()
    if name.islower() and callable(function) and name not in ("compact", "one_hot")
} | {
    "PReLU": nn.PReLU(),
    "logsumexp": partial(jax.nn.logsumexp, axis=-1, keepdims=True),
    "a partial": partial(nn.leaky_relu, negative_slope=0.2),
    "centred": lambda x: x - x.mean(axis=(1, 2), keepdims=True) if x.ndim == 4 else x,
}


def value_and_gradient(model: ConvNet, params: Any, images: jax.Array) -> Any:
    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = model.apply(params, images)
        assert isinstance(logits, jax.Array)
        return jnp.sum(jnp.cos(jnp.arange(logits.size)).reshape(logits.shape) * logits), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.fixture(scope="module")
def relu_params() -> Any:
    return jax.jit(ConvNet((4,), hidden=(6,)).init)(jax.random.key(0), jnp.ones((3, *SHAPE)))


FAST = {"relu", "gelu", "softmax", "standardize", "glu", "PReLU", "logsumexp", "a partial", "centred"}
"""One of each kind: monotone, elementwise, along channels, of another shape, with parameters, over places."""
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "activation", [pytest.param(name, marks=() if name in FAST else SLOW) for name in ACTIVATIONS]
)
def test_a_network_equals_its_definition_for_every_activation(activation: str, relu_params: Any) -> None:
    """In value and gradient; and an image's logits do not depend on what it is in a batch with."""
    model = ConvNet((4,), hidden=(6,), activation=ACTIVATIONS[activation])
    images = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    own = activation in ("PReLU", "glu", "logsumexp")  # has other shapes
    params = jax.jit(model.init)(jax.random.key(0), images) if own else relu_params

    @jax.jit
    def results(params: Any, images: jax.Array) -> list[Any]:
        definition = model.clone(reference=True)
        return [
            *(value_and_gradient(one, params, images) for one in (model, definition)),
            model.apply(params, images[:1]),
        ]

    ours, reference, alone = results(params, images)
    chex.assert_trees_all_close(ours, reference, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(alone, ours[0][1][:1], rtol=1e-3, atol=1e-4)


def test_every_name_of_flax_is_among_them() -> None:
    assert FAST | {"swish"} <= ACTIVATIONS.keys()


# --- own functions -----------------------------------------------------------------------------------------


def test_the_network_calls_the_functions() -> None:
    """Its logits are those of the layers one after the other, with the masks of its sites."""
    images = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    params: Any = jax.jit(OWN.init)(jax.random.key(0), images)["params"]
    masks = Masks(streams(jax.random.key(5)).dropout, 4, 7)

    @jax.jit
    def expected(rate: jax.Array) -> jax.Array:
        x: Any = images
        for block in range(2):
            x = nn.Conv(3 + block, (3, 3)).apply({"params": params[f"Conv_{block}"]}, x)
            assert isinstance(x, jax.Array)
            x = nn.relu(x)
            x = drop_columns(masks.key(block), rooms(x), rate, first_example=7)
        x = nn.relu(x.reshape(3, -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        return x @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]

    logits = jax.jit(lambda rate: OWN.apply({"params": params}, images, True, rate, masks))
    for rate in map(jnp.float32, (0.0, 0.4, 1.0)):
        chex.assert_trees_all_close(logits(rate), expected(rate), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_member_of_a_population_is_its_solo_run() -> None:
    program = make_population(TASK, TRAIN, VAL, batch_size=8, chunk=1)
    population = program.start(np.arange(8, dtype=np.uint32), stack([HParams(1e-2, 0.4)] * 8))
    population, _ = program.epoch(population, 0)
    run, keys = make_training(TASK, SHAPE, 16, 8), streams(jax.random.key(5))
    state, _ = jax.jit(run.epoch)(jax.jit(run.init)(keys, HPARAMS), TRAIN, run.plan(keys.shuffle, 0), HPARAMS)
    ours = jax.tree.map(lambda leaf: np.asarray(leaf)[5], population.state.params)
    chex.assert_trees_all_equal(ours, jax.device_get(state.params))


@pytest.mark.slow
def test_rates_under_vmap_are_those_of_a_run_each() -> None:
    run = partial(train_run, TASK, jax.random.key(0), train=TRAIN, val=VAL, epochs=1, batch_size=8)
    rates, once = jnp.array([0.0, 0.3, 1.0]), jax.jit(run)
    together = jax.jit(jax.vmap(lambda rate: run(HPARAMS._replace(dropout_rate=rate))[1].loss))(rates)
    alone = [once(HPARAMS._replace(dropout_rate=rate))[1].loss for rate in rates]
    chex.assert_trees_all_close(list(together), alone, rtol=1e-4)
    assert len({float(loss[0]) for loss in alone}) == 3


def test_a_step_does_not_depend_on_the_number_of_devices() -> None:
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",), axis_types=(AxisType.Auto,))
    state = jax.jit(partial(init_state, TASK, streams(jax.random.key(1)), SHAPE))(HPARAMS)
    batch = take(*TRAIN, jnp.arange(8))
    divided = jax.shard_map(
        make_train_step(TASK, "data"), mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=P()
    )
    (ours, sums), (whole, whole_sums) = (
        jax.jit(step)(state, batch, HPARAMS) for step in (divided, make_train_step(TASK))
    )
    chex.assert_trees_all_close(sums, whole_sums, rtol=1e-5)
    chex.assert_trees_all_close(ours.params, whole.params, rtol=1e-3, atol=1e-5)


def test_a_definition_given_as_a_function_is_the_named_kind() -> None:
    named, given_one = ConvNet(features=(3,)), ConvNet(features=(3,), dropout=inverted_dropout)
    images = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    params = jax.jit(named.init)(jax.random.key(0), images)
    masks = Masks(jax.random.key(3))
    logits = [
        jax.jit(partial(each.apply, train=True))(params, images, masks=masks, dropout_rate=0.5)
        for each in (named, given_one)
    ]
    chex.assert_trees_all_equal(*logits)


# --- experiments -------------------------------------------------------------------------------------------


def dataset(n: int) -> Dataset:
    images, labels = arrays(n, seed=n)
    return Dataset(np.asarray(images), np.asarray(labels))


class Stop(Exception):
    """Stands for a kill of the process."""


@pytest.mark.slow
def test_an_experiment_resumes_to_the_bit(tmp_path: Path) -> None:
    splits = Splits(dataset(16), dataset(6), dataset(7), {"file": "sum"})
    arms = [
        Arm("own", OWN, HParams(1e-2, 0.4)),
        Arm("max", OWN.clone(pooling="max"), HParams(1e-2, 0.4)),
    ]
    protocol, calls = Protocol(epochs=2, seeds=2, batch_size=8), 0

    def stop(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Stop

    whole = experiment.run(arms, protocol, splits, tmp_path / "whole")
    with pytest.raises(Stop):
        experiment.run(arms, protocol, splits, tmp_path / "resumed", report=stop)
    experiment.run(arms, protocol, splits, tmp_path / "resumed")
    rows = [(tmp_path / name / "results.csv").read_bytes() for name in ("whole", "resumed")]
    assert rows[0] == rows[1]
    assert not np.array_equal(whole.final("val_loss")[0], whole.final("val_loss")[1])
    with pytest.raises(ArgumentError, match="another protocol"):
        other = [Arm("own", OWN.clone(pooling=lambda x, window=2: x), HParams(1e-2, 0.4))]
        experiment.run(other, protocol, splits, tmp_path / "whole")


def test_an_identity_is_the_source_of_functions() -> None:
    models = [
        OWN,
        OWN.clone(pooling=lambda x, window=2: x),
        OWN.clone(pooling=lambda x, window=2: x[:, ::2]),
        OWN.clone(pooling=partial(rooms, window=3)),
        OWN.clone(dropout="inverted"),
        OWN.clone(dropout=as_dropout(inverted_noise)),
        OWN.clone(activation=lambda x: x),
        OWN.clone(activation=lambda x: 2 * x),
        OWN.clone(activation=partial(nn.leaky_relu, negative_slope=0.2)),
        OWN.clone(activation=partial(nn.leaky_relu, negative_slope=0.3)),
        OWN.clone(activation=nn.PReLU()),
    ]
    texts = [arm_identity(Arm("arm", model, HParams())) for model in models]
    assert len(set(texts)) == len(texts) and not any(" at 0x" in text for text in texts)
    assert "pooling = test_own_layers.rooms #" in texts[0]


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            {"pooling": "median2"},
            "unknown pooling 'median2' .*median\\?\\); use one of max, .*none, or give a f",
        ),
        ({"pooling": None}, "unknown pooling None"),
        ({"dropout": "bernoulli"}, "unknown dropout 'bernoulli'; use one of inverted, .*none, or give"),
        (
            {"dropout_sites": "block"},
            "unknown dropout_sites 'block' .*; use one of flatten, blocks$",
        ),
        ({"dropout_sites": nn.relu}, "unknown dropout_sites"),
    ],
)
def test_an_unknown_name_is_refused_when_the_network_is_made(mistake: dict[str, Any], message: str) -> None:
    for make in (ConvNet, MODELS["lenet-swish"].clone):
        with pytest.raises(ArgumentError, match=message) as error:
            make(**mistake)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": lambda x, window: x.mean((1, 2))},
        {"pooling": lambda x, window: x[:1]},
        {"pooling": lambda x, window: x[..., None]},
        {"pooling": lambda x, window: x[:, :0]},
        {"dropout": lambda key, x, rate, deterministic=False, first_example=0: x[0]},
    ],
)
def test_a_function_that_changes_the_wrong_axes_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"function made \("):
        jax.eval_shape(OWN.clone(**change).init, jax.random.key(0), jnp.ones((2, *SHAPE)))


@pytest.mark.parametrize("activation", [nn.relu, nn.softmax])
def test_a_named_pooling_needs_a_window(activation: Any) -> None:
    model = ConvNet(features=(2,), hidden=(), padding="VALID", activation=activation)
    init = partial(jax.eval_shape, model.init, jax.random.key(0))
    init(jnp.ones((2, 4, 4, 1)))
    with pytest.raises(UserError, match="too small"):
        init(jnp.ones((2, 3, 3, 1)))


def test_pixels_are_scaled_first() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, *SHAPE)), jnp.float32)
    params = jax.jit(OWN.init)(jax.random.key(0), images)
    for scale in (0.5, 2.0):
        scaled = jax.jit(OWN.clone(pixel_scale=scale).apply)(params, images)
        chex.assert_trees_all_close(scaled, jax.jit(OWN.apply)(params, scale * images), rtol=1e-5, atol=1e-3)


def test_a_pooling_function_may_need_less_than_a_window() -> None:
    model = ConvNet(features=(2,), hidden=(), pooling=lambda x, window=2: x)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((2, 1, 1, 1)))
    chex.assert_shape(logits, (2, 10))


def test_a_summary_names_the_functions_and_knows_their_shapes() -> None:
    rows = layers(OWN, SHAPE)
    kinds = ["Conv2D", "rooms", "column_dropout"]
    assert [row.kind for row in rows] == [*kinds, *kinds, "Flatten", "Dense", "Dense"]
    assert [row.shape for row in rows[1::3]][:2] == [(8, 7, 3), (7, 6, 4)]
    assert rows[6].shape == (7 * 6 * 4,)


@pytest.mark.parametrize("change", [{"pooling": rooms}, {"dropout": drop_columns}])
def test_what_cannot_compute_the_functions_says_so(change: dict[str, Any]) -> None:
    model = ConvNet(**change)
    with pytest.raises(UserError, match="pooling and dropout by name"):
        exported(model, {}, (28, 28, 1))
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match="max pooling, relu or swish, and a dropout by name"):
        encode(model, {}, (28, 28, 1))


def test_a_layer_alone_is_the_definition_from_example_0_on() -> None:
    x, key, rate = jnp.ones((3, 40)), jax.random.key(4), jnp.float32(0.5)
    for kind, definition in DROPOUT.items():
        shaped = x.reshape(3, 2, 4, 5) if kind == "spatial" else x
        layer, expected = jax.jit(partial(Dropout(kind).apply, {})), jax.jit(definition)(key, shaped, rate)
        # The Gaussian quantile of a fused program may be rounded otherwise; masks are equal to the bit.
        rtol = 1e-5 if kind == "gaussian" else 0
        chex.assert_trees_all_close(layer(shaped, rate, key), expected, rtol=rtol, atol=0)
        later = layer(shaped[1:], rate, key, first_example=1)
        chex.assert_trees_all_close(later, expected[1:], rtol=rtol, atol=0)
