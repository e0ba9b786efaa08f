"""A dense layer that keeps to the layout in which its three products are fast on the CPU."""

import jax


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """``x f[N, I] @ kernel f[I, O] + bias f[O]``, in value and gradient ``flax.linen.Dense``.

    All products, those of the gradient too, take ``x`` as f[I, N]: so ``conv_pool`` leaves its
    result in memory, and so the gradient with respect to ``x`` need not transpose the kernel.
    """
    # Without the barrier XLA turns each product back into the one with x as f[N, I].
    transposed = jax.lax.optimization_barrier(x.T)
    return (kernel.T @ transposed).T + bias[None]
