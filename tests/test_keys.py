"""Keys: streams, refusals, and random words that depend on the example alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32 as reference

from cnnjax import keys
from cnnjax.kernels.threefry import example_words, shared_word, threefry_2x32
from cnnjax.keys import Masks, mask_key, streams

WORD = st.integers(0, 2**32 - 1)


@given(k0=WORD, k1=WORD, c0=WORD, c1=WORD)
def test_threefry_equals_the_primitive(k0: int, k1: int, c0: int, c1: int) -> None:
    words = [jnp.uint32(word) for word in (k0, k1, c0, c1)]
    ours = jnp.stack(threefry_2x32((words[0], words[1]), (words[2], words[3])))
    theirs = reference(jnp.stack(words[:2]), jnp.stack(words[2:]))
    chex.assert_trees_all_equal(ours, theirs)


def test_threefry_known_answers() -> None:
    """The vectors published with Random123 (kat_vectors, threefry2x32, 20 rounds)."""
    ones = jnp.uint32(0xFFFFFFFF)
    zero = jnp.uint32(0)
    assert [hex(x) for x in threefry_2x32((zero, zero), (zero, zero))] == [
        "0x6b200159",
        "0x99ba4efe",
    ]
    assert [hex(x) for x in threefry_2x32((ones, ones), (ones, ones))] == [
        "0x1cb996fc",
        "0xbb002be7",
    ]


@given(blocks=st.sampled_from([1, 5]), start=st.integers(0, 100), count=st.sampled_from([1, 5]))
def test_an_examples_words_do_not_depend_on_its_company(blocks: int, start: int, count: int) -> None:
    key = jax.random.key(3)
    everyone = jax.device_get(example_words(key, jnp.arange(105, dtype=jnp.uint32), 5))
    some = example_words(key, jnp.arange(start, start + count, dtype=jnp.uint32), blocks)
    chex.assert_shape(some, (blocks, count))
    chex.assert_trees_all_equal(some, tuple(half[:blocks, start : start + count] for half in everyone))


@given(seed=WORD, first=WORD, count=st.sampled_from([1, 5]), blocks=st.sampled_from([1, 4]))
def test_the_fast_words_equal_the_definition(seed: int, first: int, count: int, blocks: int) -> None:
    key = jax.random.key(seed)
    examples = jnp.uint32(first) + jnp.arange(count, dtype=jnp.uint32)
    fast, definition = (f(key, examples, blocks) for f in (example_words, keys.example_words))
    chex.assert_trees_all_equal(fast, definition)
    chex.assert_trees_all_equal(shared_word(key), keys.shared_word(key))


def test_mask_keys_are_the_documented_tree() -> None:
    """split(root, 3)[2], then the step, then the layer: what the README draws."""
    root = jax.random.key(5)
    by_hand = jax.random.fold_in(jax.random.fold_in(jax.random.split(root, 3)[2], 7), 2)
    chex.assert_trees_all_equal(mask_key(root, layer=2, step=7), by_hand)


def test_augmentation_has_keys_that_no_mask_has() -> None:
    """One of 2^32 - 1, which numbers no step; then the step, then the place in the batch."""
    stream = jax.random.key(5)
    by_hand = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(stream, 2**32 - 1), 7), 2)
    chex.assert_trees_all_equal(Masks(stream, jnp.int32(7)).example_keys(3)[2], by_hand)


def test_the_shared_word_is_none_of_the_examples() -> None:
    """Of 100,000 words one is equal by chance with probability 2e-5."""
    words = np.stack(example_words(jax.random.key(1), jnp.arange(500, dtype=jnp.uint32), 100))
    shared = {seed: int(shared_word(jax.random.key(seed))) for seed in range(50)}
    assert len(set(shared.values())) == 50
    assert shared[1] not in words


def test_words_are_uniform() -> None:
    """Every bit is set with frequency 1/2, within 5 standard deviations of the binomial."""
    words = np.stack(example_words(jax.random.key(1), jnp.arange(500, dtype=jnp.uint32), 50))
    share = np.unpackbits(words.view(np.uint8)[..., None], axis=-1).mean(axis=(0, 1, 2))
    assert np.all(np.abs(share - 0.5) < 5 * 0.5 / np.sqrt(words.size * 4))


def test_streams_differ_from_each_other_and_between_seeds() -> None:
    data = [jax.random.key_data(k).tolist() for seed in range(50) for k in streams(jax.random.key(seed))]
    assert len({tuple(words) for words in data}) == 150


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_rbg_keys_are_refused_with_the_reason(impl: str) -> None:
    with pytest.raises(ValueError, match="same bits for every member"):
        streams(jax.random.key(0, impl=impl))


def test_raw_keys_are_refused() -> None:
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        streams(jnp.zeros((2,), jnp.uint32))
