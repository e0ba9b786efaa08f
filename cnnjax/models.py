"""One convolutional network whose fields are the axes one may ablate, and the tutorials' two instances."""

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.dropout import Dropout, Place, Rate
from cnnjax.errors import ArgumentError
from cnnjax.kernels.convolution import conv_pool, conv_pool_reference
from cnnjax.kernels.dense import dense
from cnnjax.pooling import PoolingName

Padding = Literal["SAME", "VALID"]
Activation = Callable[[jax.Array], jax.Array]


class Conv(nn.Module):
    """Convolution, activation and pooling, as one layer: pool(activation(conv(x) + bias)).

    Parameters `kernel` f32[k, k, in, out] (Glorot uniform) and `bias` f32[out] (zeros), as Keras's Conv2D
    and Flax's `nn.Conv` hold them. `reference=True` computes the same through XLA's own convolution.
    """

    features: int
    kernel_size: int
    padding: Padding
    activation: Activation
    pooling: PoolingName
    window: int = 2
    reference: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[n, height, width, in] -> f[n, height', width', out]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        layer = conv_pool_reference if self.reference else conv_pool
        return layer(
            x,
            kernel.astype(self.dtype),
            bias.astype(self.dtype),
            padding=self.padding,
            activation=self.activation,
            pooling=self.pooling,
            window=self.window,
        )


class Dense(nn.Module):
    """Dense layer with the parameters of `nn.Dense` and Keras's initialisers: Glorot uniform and zeros."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[n, in] -> f[n, features]."""
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return dense(x, kernel.astype(self.dtype), bias.astype(self.dtype))


class ConvNet(nn.Module):
    """Convolution blocks, Flatten, hidden dense layers, and a dense layer of logits.

    The defaults are the first tutorial's network (Keras: Conv2D(10, (3, 3), relu, same), MaxPooling2D(2),
    Flatten, Dropout, Dense(100, relu), Dense(10)).

    Attributes:
        features: output channels, one entry a convolution block.
        kernel_size: height and width of every kernel.
        padding: "SAME" or "VALID", as Keras's same and valid.
        activation: after every convolution and every hidden dense layer.
        pooling: a name in `POOLING`; "strided" is a convolution with strides in pooling's place.
        hidden: widths of the dense layers before the logits.
        classes: number of logits.
        dropout: a name in `DROPOUT`, or "none", which draws no masks at all.
        dropout_sites: "flatten" drops once, before the dense layers; "blocks" after every block.
        pixel_scale: factor on the images first of all; 255 undoes the division by 255, for a network that is
            to see raw pixels, as the second tutorial's.
        reference: True computes the convolutions through XLA's own, slower on the CPU.
        dtype: of all that is computed, "float32" or "bfloat16"; parameters and logits are float32.
    """

    features: tuple[int, ...] = (10,)
    kernel_size: int = 3
    padding: Padding = "SAME"
    activation: Activation = nn.relu
    pooling: PoolingName = "max"
    hidden: tuple[int, ...] = (100,)
    classes: int = 10
    dropout: str = "inverted"
    dropout_sites: Literal["flatten", "blocks"] = "flatten"
    pixel_scale: float = 1.0
    reference: bool = False
    # Not in repr(), by which experiments know the arms of directories that are older than it.
    dtype: str = field(default="float32", repr=False)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        dropout_rate: Rate = 0.0,
        dropout_key: jax.Array | None = None,
        first_example: Place = 0,
    ) -> jax.Array:
        """Logits of a batch.

        Args:
            images: f32[n, height, width, channels] in [0, 1].
            train: whether dropout draws masks; static.
            dropout_rate: float or traced scalar.
            dropout_key: the step's key; without it, the `dropout` stream of `apply(..., rngs=...)`. Site l
                of the network uses fold_in(key, l), sites counted from the input.
            first_example: where the first of `images` is in the whole batch, if they are a part of it.

        Returns:
            f32[n, classes].
        """
        draws = train and self.dropout != "none"
        stream = self.make_rng("dropout") if draws and dropout_key is None else dropout_key

        def drop(x: jax.Array, site: int) -> jax.Array:
            if self.dropout == "none":
                return x
            key = jax.random.fold_in(stream, site) if draws and stream is not None else None
            layer = Dropout(self.dropout, name=f"Dropout_{site}")
            return layer(x, dropout_rate, key, deterministic=not train, first_example=first_example)

        x = images if self.pixel_scale == 1.0 else images * self.pixel_scale
        x = x.astype(self.dtype)
        last = len(self.features) - 1
        for block, features in enumerate(self.features):
            x = Conv(
                features,
                self.kernel_size,
                self.padding,
                self.activation,
                self.pooling,
                reference=self.reference,
                dtype=self.dtype,
                name=f"Conv_{block}",
            )(x)
            if self.dropout_sites == "blocks" or block == last:
                x = drop(x, block if self.dropout_sites == "blocks" else 0)
        x = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(self.hidden):
            x = self.activation(Dense(width, self.dtype, name=f"Dense_{layer}")(x))
        logits = Dense(self.classes, self.dtype, name=f"Dense_{len(self.hidden)}")(x)
        return logits.astype(jnp.float32)


MODELS: Mapping[str, ConvNet] = MappingProxyType(
    {
        "keras-cnn": ConvNet(),
        "lenet-swish": ConvNet(
            features=(3, 6), kernel_size=5, padding="VALID", activation=nn.swish, hidden=(84,)
        ),
    }
)
"""The tutorials' networks by name: 197,210 and 9,532 parameters on 28 x 28 x 1 images."""


def model_named(name: str) -> ConvNet:
    """The network of that name.

    Raises:
        ArgumentError: there is none.
    """
    if name not in MODELS:
        raise ArgumentError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    return MODELS[name]


def parameter_count(params: object) -> int:
    """Number of scalars in a parameter tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
