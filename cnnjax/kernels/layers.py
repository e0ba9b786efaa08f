"""Linen layers of convolution, dense products and dropout that use the kernels."""

import flax.linen as nn
import jax

from cnnjax.dropout import DROPOUT
from cnnjax.kernels.convolution import Activation, Padding, conv_pool, output_size
from cnnjax.kernels.dense import dense
from cnnjax.kernels.dropout import FAST
from cnnjax.pooling import POOLING, PoolingName
from cnnjax.shapes import Array, Float, Index, Key, Scalar

WINDOW = 2
"""Height and width of a pooling window."""


class Conv(nn.Module):
    """Convolution, activation and pooling: pool(activation(conv(x) + bias)).

    Parameters `kernel` f32[k, k, in, out] (Glorot uniform) and `bias` f32[out] (zeros), as Keras's Conv2D and
    Flax's `nn.Conv` hold them. `reference=True` computes the definition; otherwise one fused kernel does.
    """

    features: int
    kernel_size: int
    padding: Padding
    activation: Activation
    pooling: PoolingName
    reference: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w in"]) -> Float[Array, "n h2 w2 out"]:
        """Apply the layer."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        if not self.reference:
            return conv_pool(
                x, kernel, bias, padding=self.padding, activation=self.activation, pooling=self.pooling
            )
        output_size(x.shape, shape, self.padding, 1 if self.pooling == "none" else WINDOW)
        layout = ("NHWC", "HWIO", "NHWC")
        convolved = jax.lax.conv_general_dilated(x, kernel, (1, 1), self.padding, dimension_numbers=layout)
        return POOLING[self.pooling](self.activation(convolved + bias[None, None, None]), WINDOW)


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
    unless one is passed. `rate` is an argument of the call, and may be traced.
    """

    kind: str = "inverted"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n *rest"],
        rate: Scalar,
        key: Key[Array, ""] | None = None,
        *,
        deterministic: bool = False,
        first_example: Index = 0,
    ) -> Float[Array, "n *rest"]:
        """Apply `DROPOUT[self.kind]`."""
        if key is None:
            # At evaluation the key is not used.
            key = jax.random.key(0) if deterministic else self.make_rng("dropout")
        drop = FAST[DROPOUT[self.kind]]
        return drop(key, x, rate, deterministic=deterministic, first_example=first_example)
