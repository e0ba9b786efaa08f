"""Augmentations: laws of each, and a training that does not depend on the number of devices."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.config import HParams
from cnnjax.data.augmentation import Augment, chain, crop, cutout, flip, rotate, rotation, shift
from cnnjax.devices import layouts
from cnnjax.errors import ArgumentError
from cnnjax.files.identity import describe
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training

SEEDS = st.integers(0, 2**32 - 1)
SIZES = [(8, 5, 1), (6, 9, 3)]
AUGMENTS: dict[str, Augment] = {
    "shift": shift(3),
    "crop": crop(4),
    "rotation": rotation(40.0),
    "cutout": cutout(3),
    "flip": flip(),
    "chain": chain(flip(), rotation(20), shift(2), cutout(4)),
    "none": chain(),
}


def picture(shape: tuple[int, ...] = SIZES[1], least: int = 1) -> jax.Array:
    """An image without black pixels, so that black tells what was filled in."""
    pixels = np.random.default_rng(0).integers(least, 256, shape)
    return jnp.asarray(pixels, jnp.uint8)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", AUGMENTS)
def test_shape_and_dtype_stay_and_a_key_decides(name: str, shape: tuple[int, ...]) -> None:
    image, keys = picture(shape), jax.random.split(jax.random.key(1), 20)
    made = jax.jit(jax.vmap(AUGMENTS[name], (0, None)))(keys, image)
    chex.assert_shape(made, (20, *shape))
    chex.assert_type(made, jnp.uint8)
    chex.assert_trees_all_equal(made[3], jax.jit(AUGMENTS[name])(keys[3], image))
    different = {np.asarray(one).tobytes() for one in made}
    assert len(different) == {"none": 1, "flip": 2}.get(name, len(different))
    assert len(different) > 5 or name in ("none", "flip")


@pytest.mark.parametrize("augment", [shift(0), crop(0), rotation(0.0), chain()])
def test_none_of_it_is_the_identity(augment: Augment) -> None:
    chex.assert_trees_all_equal(jax.jit(augment)(jax.random.key(0), picture()), picture())


@pytest.mark.parametrize("make", [shift, crop])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_comes(make: Any) -> None:
    image = picture()
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[top : top + 6, left : left + 9].tobytes() for top in range(5) for left in range(5)}
    keys = jax.random.split(jax.random.key(0), 400)
    made = {np.asarray(one).tobytes() for one in jax.jit(jax.vmap(make(2), (0, None)))(keys, image)}
    assert made == windows


@pytest.mark.parametrize("turns", [-1, 1, 2, 3])
@pytest.mark.parametrize("side", [7, 8])
def test_right_angles_are_those_of_numpy(turns: int, side: int) -> None:
    image = picture((side, side, 2))
    turned = jax.jit(rotate)(image, 90.0 * turns)
    chex.assert_trees_all_equal(turned, np.rot90(np.asarray(image), turns))


@given(degrees=st.floats(-180, 180, width=32))
def test_a_rotation_mixes_neighbours_alone(degrees: float) -> None:
    """No value leaves the range, nothing wraps, and what is constant stays so away from the edges."""
    image = picture((9, 9, 1), least=200)
    made = np.asarray(rotate(image, jnp.float32(degrees)))
    inside = np.hypot(*np.meshgrid(np.arange(9) - 4, np.arange(9) - 4)) <= 3
    assert made[inside].min() >= 200
    constant = np.asarray(rotate(jnp.full((9, 9, 1), 255, jnp.uint8), jnp.float32(degrees)))
    assert (constant[inside] == 255).all()


def test_every_angle_up_to_the_limit_comes() -> None:
    """One bright pixel at a radius of 20 draws the arc of 30 degrees up and down: 10 rows, 2.7 columns."""
    image = jnp.zeros((41, 41, 1), jnp.uint8).at[20, 40].set(255)
    keys = jax.random.split(jax.random.key(0), 300)
    arc = np.asarray(jax.jit(jax.vmap(rotation(30.0), (0, None)))(keys, image)).max((0, 3))
    rows, columns = np.flatnonzero(arc.any(1)), np.flatnonzero(arc.any(0))
    assert rows[0] in (9, 10) and rows[-1] in (30, 31) and len(rows) == rows[-1] - rows[0] + 1
    assert columns[0] in (36, 37) and columns[-1] == 40


@given(seed=SEEDS, size=st.integers(1, 12))
def test_cutout_blackens_one_square(seed: int, size: int) -> None:
    image = picture((9, 7, 2))
    made = np.asarray(cutout(size)(jax.random.key(seed), image))
    black = (made == 0).all(-1)
    assert 1 <= black.sum() <= size**2
    rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
    assert max(len(rows), len(columns)) <= size
    assert black.sum() == len(rows) * len(columns)
    assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
    np.testing.assert_array_equal(made[~black], np.asarray(image)[~black])


def test_every_pixel_is_the_centre_of_some_cutout() -> None:
    keys = jax.random.split(jax.random.key(0), 600)
    made = np.asarray(jax.jit(jax.vmap(cutout(1), (0, None)))(keys, picture()))
    assert (made == 0).all(-1).any(0).all() and ((made == 0).all(-1).sum((1, 2)) == 1).all()


def test_flip_mirrors_half_of_the_images() -> None:
    keys, image = jax.random.split(jax.random.key(0), 400), np.asarray(picture())
    made = np.asarray(jax.vmap(flip(), (0, None))(keys, picture()))
    mirrored = (made == image[:, ::-1]).all((1, 2, 3))
    assert ((made == image).all((1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(400)


def test_a_chain_splits_its_key() -> None:
    key, image = jax.random.key(3), picture()
    one, two = jax.random.split(key)
    expected = cutout(3)(two, shift(2)(one, image))
    chex.assert_trees_all_equal(chain(shift(2), cutout(3))(key, image), expected)


def test_an_identity_tells_sizes_apart() -> None:
    made = (shift(2), shift(3), rotation(10.0), rotation(20.0), chain(shift(2), cutout(4)), chain(shift(2)))
    texts = [describe(augment) for augment in made]
    assert len(set(texts)) == len(texts) and not any(" at 0x" in text for text in texts)


@pytest.mark.parametrize("make", [shift, crop, rotation, cutout])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_value_out_of_range_is_refused(make: Any, value: float) -> None:
    with pytest.raises(ArgumentError, match="must be at least"):
        make(value)


@pytest.mark.slow
@pytest.mark.devices
def test_training_is_the_same_on_one_and_on_two_devices() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 8, 8, 1)), rng.integers(0, 10, 24)
    data = Arrays(jnp.asarray(images, jnp.uint8), jnp.asarray(labels, jnp.int32))
    hparams, losses = jax.tree.map(jnp.float32, HParams(1e-2, 0.3)), []
    moved = chain(flip(), shift(2), cutout(4))
    for augment, devices in ((moved, 1), (moved, 2), (None, 1)):
        layout = layouts.layout(devices)
        task = Task(ConvNet(features=(3,), hidden=(8,)), keras_adam, augment=augment)
        run = make_training(task, (8, 8, 1), 24, 8, layout.axis_name)
        keys = streams(jax.random.key(0))
        state = layout.replicate(jax.jit(run.init)(keys, hparams))
        epoch, placed = layout.epoch(run.epoch), layout.replicate((data, hparams))
        for number in range(2):
            plan = layout.divide(run.plan(keys.shuffle, number))
            state, sums = epoch(state, placed[0], plan, placed[1])
            losses.append(float(sums.loss))
    one, two, without = losses[:2], losses[2:4], losses[4:]
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert np.abs(np.subtract(one, without)).min() > 1e-3 * one[0]
