"""A large batch in parts, for a CPU: the activations of more than `PART` examples fall out of its caches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PART = 128
"""Examples that go through a step at a time."""


def part_size(examples: int, largest: int) -> int:
    """The largest divisor of `examples` up to `largest`, or all of them where that is much smaller."""
    size = max((size for size in range(1, min(largest, examples) + 1) if examples % size == 0), default=1)
    return size if size >= largest // 2 else examples


def sum_over_parts(
    function: Callable[[Any, Any, Any], Any], axis_name: str | None = None
) -> Callable[[Any, Any, Any], Any]:
    """Make `function(params, batch, first_example)`, a sum over examples, a sum over parts on the CPU.

    Args:
        function: pure, and equal to the sum of its values over any partition of the batch.
        axis_name: the mapped axis over which the result varies, under `shard_map`.
    """

    def in_parts(params: Any, batch: Any, first_example: Any) -> Any:
        size = part_size(len(jax.tree.leaves(batch)[0]), PART)
        parts = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), batch)
        firsts = first_example + size * jnp.arange(len(jax.tree.leaves(parts)[0]))

        def add(total: Any, part: tuple[Any, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, function(params, *part)), None

        shapes = jax.eval_shape(function, params, jax.tree.map(lambda leaf: leaf[0], parts), first_example)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        zeros = zeros if axis_name is None else varying(zeros, axis_name)
        # Two, so that one part's products that keep a single core busy run beside the other part's.
        return jax.lax.scan(add, zeros, (parts, firsts), unroll=2)[0]

    def whole_or_in_parts(params: Any, batch: Any, first_example: Any) -> Any:
        examples = len(jax.tree.leaves(batch)[0])
        if part_size(examples, PART) == examples:
            return function(params, batch, first_example)
        first_example = jnp.asarray(first_example)
        return jax.lax.platform_dependent(params, batch, first_example, cpu=in_parts, default=function)

    return whole_or_in_parts


def varying(tree: Any, axis_name: str) -> Any:
    """Mark a tree as different on every device along a mapped axis, see `jax.lax.pcast`."""
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), tree)


def biases(gradient: Any) -> list[jax.Array]:
    """Return the leaves of at most one dimension, or all if there are none."""
    leaves = jax.tree.leaves(gradient)
    return [leaf for leaf in leaves if leaf.ndim < 2] or leaves


def scaled_together(gradient: Any, factor: jax.Array) -> Any:
    """Multiply a gradient by a factor that is not there before every bias's gradient is.

    Otherwise XLA's CPU scheduler updates the first parameters while the backward pass still reads them, and
    copies them for it. `optimization_barrier` does not prevent that. A factor does that depends on what is
    computed after the last reading: the gradient of the bias below a kernel. Waiting for the kernels' own
    gradients would keep a core idle, as the convolution's is the work of one.
    """
    last = jnp.sum(jnp.stack([leaf.ravel()[0] for leaf in biases(gradient)]))
    # Never true, whatever `last` is, and XLA does not know it.
    factor = jnp.where(last > jnp.inf, 0.0, factor)
    return jax.tree.map(lambda leaf: leaf * factor, gradient)
