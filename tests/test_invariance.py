"""A mask is decided by (seed, layer, step, place in the global batch), and by nothing else: bit for bit.

And one training step of the whole network gives the same parameters however it is run. These may differ by
the order in which float32 sums are taken: over the batch (a part per device, then the parts) and inside the
matrix products, whose blocking depends on their shapes. Each reorders a sum of n terms, an error of about
n^(1/2) 2^-24 relative to the sum of the terms' magnitudes; 1e-5 of the largest entry of a leaf is above that
for every sum here, and far below any effect of a wrong mask (one changed mask bit moves entries by 1e-3).
"""

import itertools
from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cnnjax.batches import Batch
from cnnjax.config import HParams
from cnnjax.dropout import DROPOUT, classic_dropout
from cnnjax.kernels import parts
from cnnjax.kernels.dropout import FAST
from cnnjax.keys import mask_key, streams
from cnnjax.models import ConvNet
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state
from cnnjax.train import make_train_step

BATCH, SHAPE, RATE = 16, (16, 4, 4, 5), 0.37
DEVICES = [2, 8, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 4))]
Masks = dict[str, jax.Array]


def masks(key: jax.Array, x: jax.Array, axis_name: str | None = None) -> Masks:
    """Of every kind of dropout, in one program."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(x)
    return {kind: FAST[DROPOUT[kind]](key, x, RATE, first_example=first) for kind in DROPOUT}


def layer_key(seed: int, step: int, layer: int) -> jax.Array:
    return mask_key(jax.random.key(seed), layer, step)


def mesh(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def expected() -> Masks:
    return jax.device_get(jax.jit(masks)(layer_key(3, 5, 1), jnp.ones(SHAPE)))


@pytest.mark.devices
@pytest.mark.parametrize("devices", DEVICES)
def test_sharded_jit(devices: int, expected: Masks) -> None:
    x = jax.device_put(jnp.ones(SHAPE), NamedSharding(mesh(devices), P("data")))
    got = jax.jit(masks)(layer_key(3, 5, 1), x)
    assert {len(y.sharding.device_set) for y in got.values()} == {devices}
    chex.assert_trees_all_equal(jax.device_get(got), expected)


@pytest.mark.devices
@pytest.mark.parametrize("devices", DEVICES)
def test_pmap(devices: int, expected: Masks) -> None:
    mapped = jax.pmap(
        partial(masks, axis_name="data"), "data", in_axes=(None, 0), devices=jax.devices()[:devices]
    )
    got = mapped(layer_key(3, 5, 1), jnp.ones((devices, BATCH // devices, *SHAPE[1:])))
    chex.assert_trees_all_equal({kind: np.asarray(y).reshape(SHAPE) for kind, y in got.items()}, expected)


@pytest.mark.devices
@pytest.mark.parametrize("devices", DEVICES)
def test_shard_map(devices: int, expected: Masks) -> None:
    mapped = jax.shard_map(
        partial(masks, axis_name="data"), mesh=mesh(devices), in_specs=(P(), P("data")), out_specs=P("data")
    )
    got = jax.jit(mapped)(layer_key(3, 5, 1), jnp.ones(SHAPE))
    chex.assert_trees_all_equal(jax.device_get(got), expected)


def test_scan_vmap_and_eager(expected: Masks) -> None:
    x, seeds = jnp.ones(SHAPE), jnp.stack([layer_key(seed, 5, 1) for seed in range(5)])

    @jax.jit
    def scanned() -> Masks:
        def body(step: jax.Array, _: None) -> tuple[jax.Array, Masks]:
            return step + 1, masks(mask_key(jax.random.key(3), 1, step), x)

        return jax.lax.scan(body, jnp.int32(0), None, length=7)[1]

    got = {
        "scan": jax.tree.map(lambda y: y[5], scanned()),
        "vmap": jax.tree.map(lambda y: y[3], jax.jit(jax.vmap(masks, in_axes=(0, None)))(seeds, x)),
        "map": jax.tree.map(lambda y: y[3], jax.lax.map(lambda k: masks(k, x), seeds)),
        "eager": masks(layer_key(3, 5, 1), x),
    }
    for name, kind in itertools.product(got, DROPOUT):
        # Gaussian noise is no mask: the same bits go through a logarithm, which XLA rounds as it is fused.
        tolerance = 1e-5 if kind == "gaussian" else 0.0
        np.testing.assert_allclose(got[name][kind], expected[kind], tolerance, tolerance, err_msg=name)


@pytest.mark.parametrize(("start", "count"), [(0, 1), (3, 9), (BATCH - 1, 1)])
def test_a_part_has_the_masks_of_the_whole(start: int, count: int, expected: Masks) -> None:
    """Of the definitions, too."""

    @jax.jit
    def of_part(start: jax.Array) -> Masks:
        part = jnp.ones((count, *SHAPE[1:]))
        return {kind: f(layer_key(3, 5, 1), part, RATE, first_example=start) for kind, f in DROPOUT.items()}

    for kind, y in of_part(jnp.uint32(start)).items():
        np.testing.assert_allclose(y, expected[kind][start : start + count], rtol=1e-5, atol=1e-5)


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32-20 on Python integers, from the paper: the oracle's own."""
    word = 2**32
    schedule = [key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = (counter[0] + schedule[0]) % word, (counter[1] + schedule[1]) % word
    for i in range(20):
        rotation = ((13, 15, 26, 6), (17, 29, 16, 24))[i // 4 % 2][i % 4]
        x = (x + y) % word
        y = ((y << rotation | y >> (32 - rotation)) % word) ^ x
        if i % 4 == 3:
            group = i // 4 + 1
            x = (x + schedule[group % 3]) % word
            y = (y + schedule[(group + 1) % 3] + group) % word
    return x, y


def oracle(seed: int, layer: int, step: int, example: int, elements: int, rate: float) -> np.ndarray:
    """The keep mask of one example from its four coordinates, without JAX."""
    root = (0, seed)
    stream = threefry(root, (0, 2))  # split(root, 3)[2]
    key = threefry(threefry(stream, (0, step)), (0, layer))  # fold_in, twice
    words = np.array([threefry(key, (example, block)) for block in range(-(-elements // 4))], "<u4")
    shared = threefry(key, (2**32 - 1, 2**32 - 1))[0] >> 18
    uniform = words.ravel().view("<u2").astype(np.int64) * 2**14 + shared
    return (uniform >= np.round(np.float32(rate) * 2**30))[:elements]


@pytest.mark.parametrize("coordinates", [(3, 1, 5, 0), (3, 1, 5, 15), (2**32 - 1, 0, 1499, 7)])
def test_a_numpy_oracle_rebuilds_one_example(coordinates: tuple[int, int, int, int]) -> None:
    seed, layer, step, example = coordinates
    for rate in (0.0, RATE, 0.5, 1.0):
        y = classic_dropout(layer_key(seed, step, layer), jnp.ones((BATCH, 5, 5, 3)), rate)
        want = oracle(seed, layer, step, example, 75, rate)
        chex.assert_trees_all_equal(np.asarray(y[example]).ravel() > 0, want)


def test_no_two_steps_layers_seeds_or_examples_share_a_mask() -> None:
    """4 x 4 x 4 x 16 masks of 80 fair bits: a collision by chance has probability below 2^-60."""
    keys = jnp.stack([layer_key(*where) for where in itertools.product(range(4), repeat=3)])
    drop = jax.jit(jax.vmap(partial(classic_dropout, x=jnp.ones(SHAPE), rate=0.5)))
    bits = np.packbits(np.asarray(drop(keys)).reshape(4 * 4 * 4 * BATCH, -1) > 0, axis=1)
    assert len({row.tobytes() for row in bits}) == 4 * 4 * 4 * BATCH


MODEL = ConvNet(features=(4, 6), hidden=(12,), dropout_sites="blocks")
HPARAMS = HParams(jnp.float32(1e-2), jnp.float32(0.4))


def sgd(hparams: HParams) -> optax.GradientTransformation:
    """Plain descent: parameters move by the gradient itself, so its error is seen as it is."""
    return optax.sgd(hparams.learning_rate * 100)


TASK, SHAPE_OF_IMAGES = Task(MODEL, sgd), (12, 12, 1)


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    weight = np.ones(BATCH, np.float32)
    weight[-3:] = 0  # the remainder of an epoch: uneven over the devices
    return Batch(
        jnp.asarray(rng.integers(0, 256, (BATCH, 12, 12, 1)), jnp.uint8),
        jnp.asarray(rng.integers(0, 10, BATCH), jnp.int32),
        jnp.asarray(weight),
    )


@pytest.fixture(scope="module")
def state(batch: Batch) -> TrainState:
    init = jax.jit(lambda key: init_state(TASK, streams(key), SHAPE_OF_IMAGES, HPARAMS))
    return init(jax.random.key(1))


@pytest.fixture(scope="module")
def stepped(state: TrainState, batch: Batch) -> tuple[TrainState, object]:
    return jax.jit(make_train_step(TASK))(state, batch, HPARAMS)


def assert_same_step(got: tuple[TrainState, object], want: tuple[TrainState, object]) -> None:
    (after, sums), (wanted, wanted_sums) = jax.device_get(
        ((got[0].params, got[1]), (want[0].params, want[1]))
    )
    chex.assert_trees_all_close(sums, wanted_sums, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(wanted), strict=True):
        assert np.max(np.abs(ours - theirs)) <= 1e-5 * np.max(np.abs(theirs))


@pytest.mark.devices
@pytest.mark.parametrize("devices", [8])  # two: in parts, below
def test_step_by_sharded_jit(devices: int, state: TrainState, batch: Batch, stepped: tuple) -> None:
    here = mesh(devices)
    shards = jax.device_put(batch, NamedSharding(here, P("data")))
    replicated = jax.device_put((state, HPARAMS), NamedSharding(here, P()))
    got = jax.jit(make_train_step(TASK))(replicated[0], shards, replicated[1])
    assert_same_step(got, stepped)


@pytest.mark.devices
@pytest.mark.parametrize("devices", [8])  # two: in parts, below
def test_step_by_pmap(devices: int, state: TrainState, batch: Batch, stepped: tuple) -> None:
    parts = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    step = jax.pmap(
        make_train_step(TASK, axis_name="data"),
        "data",
        in_axes=(None, 0, None),
        out_axes=None,
        devices=jax.devices()[:devices],
    )
    assert_same_step(step(state, parts, HPARAMS), stepped)


@pytest.mark.devices
@pytest.mark.parametrize("devices", [8])  # two: in parts, below
def test_step_by_shard_map(devices: int, state: TrainState, batch: Batch, stepped: tuple) -> None:
    step = jax.shard_map(
        make_train_step(TASK, axis_name="data"),
        mesh=mesh(devices),
        in_specs=(P(), P("data"), P()),
        out_specs=P(),
    )
    assert_same_step(jax.jit(step)(state, batch, HPARAMS), stepped)


def test_step_in_scan_and_population(state: TrainState, batch: Batch, stepped: tuple) -> None:
    step = make_train_step(TASK)

    def scan(state: TrainState) -> tuple[TrainState, object]:
        return jax.lax.scan(lambda s, _: (s, step(s, batch, HPARAMS)), state, None, length=1)[1]

    got = jax.jit(scan)(state)
    assert_same_step(jax.tree.map(lambda leaf: leaf[0], got), stepped)
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])

    def member(key: jax.Array) -> tuple[TrainState, object]:
        return step(init_state(TASK, streams(key), SHAPE_OF_IMAGES, HPARAMS), batch, HPARAMS)

    members = jax.jit(jax.vmap(member))(keys)
    assert_same_step(jax.tree.map(lambda leaf: leaf[1], members), stepped)


def test_step_in_parts(
    state: TrainState, batch: Batch, stepped: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CPU takes a batch that is larger than `PART`, here in parts of 4."""
    monkeypatch.setattr(parts, "PART", 5)
    assert parts.part_size(BATCH, parts.PART) == 4
    assert_same_step(jax.jit(make_train_step(TASK))(state, batch, HPARAMS), stepped)


@pytest.mark.devices
@pytest.mark.parametrize(
    "way",
    [
        test_step_by_shard_map,
        *(pytest.param(way, marks=pytest.mark.slow) for way in (test_step_by_pmap, test_step_by_sharded_jit)),
    ],
)
def test_step_in_parts_on_devices(
    way: Callable, state: TrainState, batch: Batch, stepped: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART", 4)
    way(2, state, batch, stepped)


def test_a_batch_that_hardly_divides_is_taken_whole() -> None:
    assert [parts.part_size(n, parts.PART) for n in (1, 32, 128, 192, 250, 256, 257, 500, 512)] == [
        *(1, 32, 128, 96, 125, 128, 257, 125, 128)
    ]


def test_one_changed_mask_would_be_seen(state: TrainState, batch: Batch, stepped: tuple) -> None:
    """The tolerance above has teeth: the next step's masks fail it."""
    other = jax.jit(make_train_step(TASK))(state._replace(step=state.step + 1), batch, HPARAMS)
    with pytest.raises(AssertionError):
        assert_same_step(other, stepped)
