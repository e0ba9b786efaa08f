"""Linen layers of convolution, dense products and dropout that use the kernels."""

import flax.linen as nn
import jax

from cnnjax.dropout import DROPOUT, DropoutFunction
from cnnjax.errors import ArgumentError
from cnnjax.kernels.convolution import Activation, Padding, conv_pool, is_elementwise, output_size
from cnnjax.kernels.convolution_in_loops import LAYOUT, conv_general_dilated
from cnnjax.kernels.dense import dense
from cnnjax.kernels.dropout import FAST
from cnnjax.pooling import POOLING, Pooling, PoolingName
from cnnjax.shapes import Array, Float, Index, Key, Scalar

WINDOW = 2
"""Height and width of a pooling window."""


class Conv(nn.Module):
    """Convolution, activation and pooling: pool(activation(conv(x) + bias)).

    Parameters `kernel` f32[k, k, in, out] (Glorot uniform) and `bias` f32[out] (zeros), as Keras's Conv2D and
    Flax's `nn.Conv` hold them. One fused kernel computes it where pooling has a name and the activation is
    known to be elementwise; otherwise the three follow each other, as they always do with `reference=True`.
    """

    features: int
    kernel_size: int
    padding: Padding
    activation: Activation
    pooling: PoolingName | Pooling
    reference: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w in"]) -> Float[Array, "n h2 w2 out"]:
        """Apply the layer.

        Raises:
            UserError: the image is too small for a single output.
            ArgumentError: a pooling function does not return images.
        """
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        pooling, window = self.pooling, 1
        if isinstance(pooling, str):
            if not self.reference and is_elementwise(self.activation):
                return conv_pool(
                    x, kernel, bias, padding=self.padding, activation=self.activation, pooling=pooling
                )
            pooling, window = POOLING[pooling], 1 if pooling == "none" else WINDOW
        output_size(x.shape, shape, self.padding, window)
        convolve = jax.lax.conv_general_dilated if self.reference else conv_general_dilated
        convolved = convolve(x, kernel, (1, 1), self.padding, dimension_numbers=LAYOUT)
        activated = self.activation(convolved + bias[None, None, None])
        pooled = pooling(activated, WINDOW)
        if pooled.ndim != 4 or pooled.shape[::3] != activated.shape[::3] or 0 in pooled.shape:
            raise ArgumentError(
                f"the pooling function made {pooled.shape} of {activated.shape}; it must return images "
                "(n, height, width, channels), with n and channels as they were and one pixel at least"
            )
        return pooled


class Dense(nn.Module):
    """Dense layer with the parameters of `nn.Dense` and Keras's initialisers: Glorot uniform and zeros."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "n in"]) -> Float[Array, "n out"]:
        """X @ kernel + bias."""
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return dense(x, kernel.astype(self.dtype), bias.astype(self.dtype))


class Dropout(nn.Module):
    """Dropout as a layer: `Dropout("inverted")(x, rate)`.

    Its key comes from the `dropout` stream of `apply(..., rngs={"dropout": key})`, as for Flax's own layer,
    unless one is passed. `rate` is an argument of the call, and may be traced. `kind` is a name in `DROPOUT`
    or a function.
    """

    kind: str | DropoutFunction = "inverted"

    def __call__(
        self,
        x: Float[Array, "n *rest"],
        rate: Scalar,
        key: Key[Array, ""] | None = None,
        *,
        deterministic: bool = False,
        first_example: Index = 0,
    ) -> Float[Array, "n *rest"]:
        """Apply the function.

        Raises:
            ArgumentError: its result has not the shape of x.
        """
        if key is None:
            # At evaluation the key is not used.
            key = jax.random.key(0) if deterministic else self.make_rng("dropout")
        definition = DROPOUT[self.kind] if isinstance(self.kind, str) else self.kind
        drop = FAST.get(definition, definition)
        dropped = drop(key, x, rate, deterministic=deterministic, first_example=first_example)
        if dropped.shape != x.shape:
            raise ArgumentError(f"the dropout function made {dropped.shape} of {x.shape}: keep the shape")
        return dropped
