"""A dense layer that keeps to the layouts in which its three products are fast on the CPU."""

import jax


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """``x f[N, I] @ kernel f[I, O] + bias f[O]``, in value and gradient ``flax.linen.Dense``.

    All products, those of the gradient too, have the examples last: ``x`` as f[I, N], as ``conv_pool``
    leaves it in memory, and the result as f[O, N]. The gradient with respect to ``x`` is then a product
    of the kernel as it lies in memory.
    """
    # Without the barriers XLA turns each product back into the one with x as f[N, I].
    transposed = jax.lax.optimization_barrier(x.T)
    # Not kernel.T @ transposed: XLA folds that transpose into what made the kernel or into the product, as it
    # finds them, so that a member of a population and its solo run would sum in another order.
    product = jax.lax.dot_general(kernel, transposed, (((0,), (0,)), ((), ())))
    return jax.lax.optimization_barrier(product + bias[:, None]).T
