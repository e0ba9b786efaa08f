"""Pooling fast on the CPU: equal to the reductions of `cnnjax.pooling`, in value and gradient."""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.pooling import PoolingName, Reduction, first


def maximum(values: jax.Array, key: Callable[[jax.Array], jax.Array] | None = None) -> jax.Array:
    """See `cnnjax.pooling.maximum`."""
    return _pick(values, None if key is None else jax.lax.stop_gradient(key(values)))


def average(values: jax.Array) -> jax.Array:
    """See `cnnjax.pooling.average`."""
    # Summed row by row: a reduction over so short an axis is several times slower on the CPU.
    first_row, *rows = _unstack(values)
    return sum(rows, start=first_row) / len(values)


def median(values: jax.Array) -> jax.Array:
    """See `cnnjax.pooling.median`.

    The gradient goes to the middle value, or in halves to the middle two; equal values share it.
    """
    rows = list(_unstack(values))
    count = len(rows)
    # Odd-even transposition: compares whole rows, where a sort on the CPU goes value by value.
    for turn in range(count):
        for i in range(turn % 2, count - 1, 2):
            low, high = jnp.minimum(rows[i], rows[i + 1]), jnp.maximum(rows[i], rows[i + 1])
            rows[i], rows[i + 1] = low, high
    return (rows[(count - 1) // 2] + rows[count // 2]) / 2


REDUCTIONS: Mapping[PoolingName, Reduction] = MappingProxyType(
    {"max": maximum, "average": average, "median": median, "strided": first, "none": first}
)


@jax.custom_jvp
def _pick(values: jax.Array, scores: jax.Array | None) -> jax.Array:
    if scores is None:
        # Not the running maximum without its offset, which XLA's CPU compiler turns into a slow reduction.
        return reduce(jnp.maximum, _unstack(values))
    return _pick_with_offset(values, scores)[0]


@_pick.defjvp
def _pick_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    best, offset = _pick_with_offset(*primals)
    picked = jax.lax.broadcasted_iota(offset.dtype, primals[0].shape, 0) == offset[None]
    # Transposed, one pass that writes each offset's gradient or zero.
    return best, jnp.sum(jnp.where(picked, tangents[0], jnp.zeros_like(tangents[0])), axis=0)


def _pick_with_offset(values: jax.Array, scores: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The first value with the largest score (itself, where there are none), and where along axis 0 it is.

    Both come from one reduction: XLA on the CPU gives two results in one pass over memory by nothing else.
    """
    small = np.min_scalar_type(len(values))
    if scores is None:
        return _running_maximum(values, small)
    offset = jax.lax.broadcasted_iota(small, values.shape, 0)

    def larger(one: tuple[jax.Array, ...], other: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        (i, _, a), (j, _, b) = one, other
        equal = (a == b) | (a != a) & (b != b)
        wins = (a > b) | (a != a) & (b == b) | equal & (i < j)
        return tuple(jnp.where(wins, p, q) for p, q in zip(one, other, strict=True))

    operands, lowest = (offset, values, scores), (len(values), -jnp.inf, -jnp.inf)
    none = tuple(jnp.full((), low, operand.dtype) for low, operand in zip(lowest, operands, strict=True))
    first_offset, best, _ = jax.lax.reduce(operands, none, larger, (0,))
    return best, first_offset


def _running_maximum(values: jax.Array, small: np.dtype) -> tuple[jax.Array, jax.Array]:
    """`_pick_with_offset` row after row, which XLA fuses with what makes the rows."""
    best, offset = values[0], jnp.zeros(values.shape[1:], small)
    for i in range(1, len(values)):
        wins = (values[i] > best) | (values[i] != values[i]) & (best == best)
        best, offset = jnp.where(wins, values[i], best), jnp.where(wins, small.type(i), offset)
    # Each result and, so that there is something to reduce, one that is lower.
    results, lowest = (best, offset), (jnp.full((), -jnp.inf, best.dtype), jnp.zeros((), small))
    pairs = jax.tree.map(
        lambda one, low: jax.lax.pad(one[None], low, [(0, 1, 0)] + [(0, 0, 0)] * one.ndim), results, lowest
    )
    return jax.lax.reduce(pairs, lowest, partial(jax.tree.map, jax.lax.max), (0,))


def _unstack(values: jax.Array) -> tuple[jax.Array, ...]:
    # Transposed, a split is one concatenation, where each index would be a padded array.
    return tuple(row.squeeze(0) for row in jax.lax.split(values, (1,) * len(values)))
