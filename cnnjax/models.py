"""One convolutional network whose fields are the axes one may ablate, and the tutorials' two instances."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.dropout import DROPOUT, DropoutFunction
from cnnjax.errors import ArgumentError
from cnnjax.files.misspelt import choose
from cnnjax.kernels.convolution import Activation, Padding
from cnnjax.kernels.layers import Conv, Dense, Dropout
from cnnjax.keys import Masks
from cnnjax.pooling import POOLING, Pooling, PoolingName
from cnnjax.shapes import Array, Float32, Scalar

DropoutSites = Literal["flatten", "blocks"]


class ConvNet(nn.Module):
    """Convolution blocks, Flatten, hidden dense layers, and a dense layer of logits.

    The defaults are the first tutorial's network (Keras: Conv2D(10, (3, 3), relu, same), MaxPooling2D(2),
    Flatten, Dropout, Dense(100, relu), Dense(10)).

    Attributes:
        features: output channels, one entry per convolution block.
        kernel_size: height and width of every kernel.
        padding: "SAME" or "VALID", as Keras's same and valid.
        activation: after every convolution and every hidden dense layer.
        pooling: a name in `POOLING`, where "strided" is a convolution with strides in place of pooling; or a
            function of your own, see `cnnjax.pooling.Pooling`.
        hidden: widths of the dense layers before the logits.
        classes: number of logits.
        dropout: a name in `DROPOUT`, or "none", which draws no masks at all; or a function of your own, see
            `cnnjax.dropout.as_dropout`.
        dropout_sites: "flatten" drops once, before the dense layers; "blocks" after every block.
        pixel_scale: factor on the images, applied first; 255 undoes the division by 255, for a network that
            takes raw pixels, as the second tutorial's.
        reference: compute the convolutions by their definition, slower on the CPU.
        dtype: of the computation, "float32" or "bfloat16"; parameters and logits are float32.

    Raises:
        ArgumentError: there is no pooling, dropout or place of dropout of that name.
    """

    features: tuple[int, ...] = (10,)
    kernel_size: int = 3
    padding: Padding = "SAME"
    activation: Activation = nn.relu
    pooling: PoolingName | Pooling = "max"
    hidden: tuple[int, ...] = (100,)
    classes: int = 10
    dropout: str | DropoutFunction = "inverted"
    dropout_sites: DropoutSites = "flatten"
    pixel_scale: float = 1.0
    reference: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        names = {"pooling": POOLING, "dropout": (*DROPOUT, "none"), "dropout_sites": get_args(DropoutSites)}
        for field, choices in names.items():
            value, own = getattr(self, field), "" if field == "dropout_sites" else ", or give a function"
            if not (own and callable(value)) and value not in tuple(choices):
                raise ArgumentError(f"unknown {field} {value!r}{choose(str(value), choices)}{own}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        images: Float32[Array, "n h w c"],
        train: bool = False,
        dropout_rate: Scalar = 0.0,
        masks: Masks | None = None,
    ) -> Float32[Array, "n classes"]:
        """Compute the logits of a batch.

        Args:
            images: pixels in [0, 1].
            train: whether dropout draws masks; static.
            dropout_rate: float or traced scalar.
            masks: which masks to draw: site l, counted from the input, uses `masks.key(l)`. Without it, keys
                come from the `dropout` stream of `apply(..., rngs=...)`.
        """

        def drop(x: jax.Array, site: int) -> jax.Array:
            if self.dropout == "none":
                return x
            key, first = (None, 0) if masks is None or not train else (masks.key(site), masks.first_example)
            layer = Dropout(self.dropout, name=f"Dropout_{site}")
            return layer(x, dropout_rate, key, deterministic=not train, first_example=first)

        x = images if self.pixel_scale == 1.0 else images * self.pixel_scale
        x = x.astype(self.dtype)
        for block, features in enumerate(self.features):
            x = Conv(
                features,
                self.kernel_size,
                self.padding,
                self.activation,
                self.pooling,
                self.reference,
                self.dtype,
                name=f"Conv_{block}",
            )(x)
            if self.dropout_sites == "blocks":
                x = drop(x, block)
        if self.dropout_sites == "flatten":
            # Before it is flattened: spatial dropout drops channels.
            x = drop(x, 0)
        x = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(self.hidden):
            x = self.activation(Dense(width, self.dtype, name=f"Dense_{layer}")(x))
        logits = Dense(self.classes, self.dtype, name=f"Dense_{len(self.hidden)}")(x)
        return logits.astype(jnp.float32)


MODELS: Mapping[str, ConvNet] = MappingProxyType(
    {
        "keras-cnn": ConvNet(),
        "lenet-swish": ConvNet((3, 6), kernel_size=5, padding="VALID", activation=nn.swish, hidden=(84,)),
    }
)
"""The tutorials' networks by name: 197,210 and 9,532 parameters on 28 x 28 x 1 images."""
