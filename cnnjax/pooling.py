"""Pooling: each window of an image becomes one value.

A kind of pooling is a reduction over the leading axis of `values f[offsets, ...]`, where offset
`r * window + c` holds what lies in row r and column c of every window. `POOLING` applies the reductions to
images. Networks use the fast forms of `cnnjax.kernels`, which equal these.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal, Protocol

import flax.linen as nn
import jax.numpy as jnp

from cnnjax.shapes import Array, Float

PoolingName = Literal["max", "average", "median", "strided", "none"]
Reduction = Callable[[Float[Array, "offsets *rest"]], Float[Array, "*rest"]]


class Pooling(Protocol):
    """`f(x, window)`, which takes images to smaller ones."""

    def __call__(self, x: Float[Array, "n h w c"], window: int = 2) -> Float[Array, "n h2 w2 c"]:
        """Height and width become height // window and width // window; a remainder is dropped."""
        ...


def maximum(
    values: Float[Array, "offsets *rest"], key: Callable[[Array], Array] = lambda values: values
) -> Float[Array, "*rest"]:
    """Pick along axis 0 the value whose `key` is largest, as `max(values, key=key)` does.

    Of equal ones the first wins and takes the whole gradient, as in `flax.linen.max_pool`. A NaN wins over
    numbers; of several NaNs, the first on a CPU and any on a GPU.
    """
    winner = jnp.argmax(key(values), axis=0, keepdims=True)
    return jnp.take_along_axis(values, winner, axis=0)[0]


def average(values: Float[Array, "offsets *rest"]) -> Float[Array, "*rest"]:
    """Mean along axis 0."""
    return jnp.mean(values, axis=0)


def median(values: Float[Array, "offsets *rest"]) -> Float[Array, "*rest"]:
    """Median along axis 0: of an even number the mean of the middle two, NaN if any value is one."""
    ordered, n = jnp.sort(values, axis=0), len(values)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return jnp.where(jnp.isnan(ordered[-1]), ordered[-1], middle)


def first(values: Float[Array, "offsets *rest"]) -> Float[Array, "*rest"]:
    """Keep offset 0, the top left; after a convolution that is one with larger strides."""
    return values[0]


REDUCTIONS: Mapping[PoolingName, Reduction] = MappingProxyType(
    {"max": maximum, "average": average, "median": median, "strided": first, "none": first}
)


def pool(reduction: Reduction, x: Float[Array, "n h w c"], window: int = 2) -> Float[Array, "n h2 w2 c"]:
    """Apply a reduction to windows that do not overlap; what is left over at the far edges is dropped."""
    height, width = (size // window * window for size in x.shape[1:3])
    offsets = [x[:, r:height:window, c:width:window] for r in range(window) for c in range(window)]
    return reduction(jnp.stack(offsets))


def max_pool(x: Float[Array, "n h w c"], window: int = 2) -> Float[Array, "n h2 w2 c"]:
    """`pool(maximum, x, window)` by the operation that XLA has for it."""
    return nn.max_pool(x, (window, window), (window, window))


def no_pooling(x: Float[Array, "n h w c"], window: int = 1) -> Float[Array, "n h w c"]:
    """Return the images as they are."""
    del window
    return x


POOLING: Mapping[PoolingName, Pooling] = MappingProxyType(
    {
        "max": max_pool,
        "average": partial(pool, average),
        "median": partial(pool, median),
        "strided": partial(pool, first),
        "none": no_pooling,
    }
)
"""The kinds by name; "strided" turns a convolution into one with larger strides."""
