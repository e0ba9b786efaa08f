"""What is trained: a model, an optimizer, a loss, and what happens to images on the device."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax import config
from cnnjax.errors import ArgumentError, one_line
from cnnjax.kernels.convolution_in_loops import fast_in_loops
from cnnjax.keys import Masks, Streams, streams
from cnnjax.metrics import example_loss
from cnnjax.models import ConvNet
from cnnjax.shapes import Array, Float32, Int32, Key, UInt8
from cnnjax.state import TrainState

HParams = Any
"""A NamedTuple of scalars, or of arrays with a leading axis of members; `cnnjax.config.HParams` is one."""
MakeOptimizer = Callable[[Any], optax.GradientTransformation]
Loss = Callable[[Float32[Array, "n classes"], Int32[Array, " n"]], Float32[Array, " n"]]
Preprocess = Callable[[UInt8[Array, "n h w c"]], Float32[Array, "n h w c"]]
Augment = Callable[[Key[Array, ""], UInt8[Array, "h w c"]], UInt8[Array, "h w c"]]


def to_unit_interval(images: UInt8[Array, "n h w c"]) -> Float32[Array, "n h w c"]:
    """Divide pixels by 255."""
    return images.astype(jnp.float32) / 255.0


class Task(NamedTuple):
    """A network and how it is trained; everything that trains takes one.

    The model is any Linen module. Its `__call__` takes the images, and by name what it asks for: `train` or
    `deterministic`, `hparams` or any of its fields, and `masks` (`cnnjax.keys.Masks`). In training,
    `rngs={"dropout": key}` is passed for Flax's own dropout. Collections besides `params`, such as
    `batch_stats`, are updated in training and used in evaluation.
    """

    model: nn.Module
    optimizer: MakeOptimizer  # from the traced hyperparameters
    loss: Loss = example_loss  # one number per example
    preprocess: Preprocess = to_unit_interval
    augment: Augment | None = None  # (key of the example, image), in training only


def init_state(task: Task, keys: Streams, image_shape: tuple[int, ...], hparams: HParams) -> TrainState:
    """Make the state before the first step.

    Args:
        task: what is trained.
        keys: the named streams of the run.
        image_shape: (height, width, channels).
        hparams: traced hyperparameters.
    """
    images = task.preprocess(jnp.zeros((1, *image_shape), jnp.uint8))
    arguments = _asked_for(task.model, hparams, train=False)
    rngs = {"params": keys.init, "dropout": Masks(keys.dropout).foreign_key()}
    variables = dict(task.model.init(rngs, images, **arguments))
    params = variables.pop("params", {})
    opt_state = task.optimizer(hparams).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, keys.dropout, variables)


def require_fit(
    task: Task, image_shape: tuple[int, ...], classes: int, hparams: HParams, subject: str
) -> None:
    """Check, by shapes alone, that the model and its loss go with the data.

    Raises:
        ArgumentError: the model fails on such images, or its output is not float[n, classes], or the loss
            is not float[n]. The message begins with `subject`.
    """

    def logits(images: jax.Array) -> jax.Array:
        state = init_state(task, streams(jax.random.key(0)), image_shape, hparams)
        return predict(task, state, images, hparams)

    def shape(what: str, function: Callable[..., Any], wanted: tuple[int, ...], *given: Any) -> Any:
        try:
            out = jax.eval_shape(function, *given)
        except Exception as error:
            size = " x ".join(map(str, image_shape))
            raise ArgumentError(f"{subject}: {what} fails on images of {size}: {one_line(error)}") from error
        made = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", out)
        if not (getattr(out, "shape", None) == wanted and jnp.issubdtype(out.dtype, jnp.floating)):
            each = f"a logit for each class (classes={classes})" if wanted[1:] else "one number an image"
            raise ArgumentError(
                f"{subject}: of {wanted[0]} images {what} makes {made}; it must make float32{list(wanted)}: "
                f"{each}"
            )
        return out

    out = shape("the network", logits, (2, classes), jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8))
    shape("the loss", task.loss, (2,), out, jax.ShapeDtypeStruct((2,), jnp.int32))


def predict(task: Task, state: TrainState, images: UInt8[Array, "n h w c"], hparams: HParams) -> Array:
    """Compute logits as in evaluation: without masks, with the statistics collected in training."""
    variables = {"params": state.params, **state.collections}
    arguments = _asked_for(task.model, hparams, train=False)
    return task.model.apply(variables, task.preprocess(images), **arguments)  # pyright: ignore[reportReturnType]


def forward(
    task: Task,
    params: Any,
    collections: Any,
    images: UInt8[Array, "n h w c"],
    hparams: HParams,
    masks: Masks,
    axis_name: str | None = None,
) -> tuple[Float32[Array, "n classes"], Any]:
    """Compute logits as in training, and the collections afterwards.

    Args:
        task: what is trained.
        params: of the model.
        collections: all other variables of the model.
        images: a batch, or a part of one.
        hparams: traced hyperparameters.
        masks: where the masks of this batch, its augmentation and the key for Flax's dropout come from.
        axis_name: the mapped axis that divides the batch; BatchNorm's statistics are taken over it.
    """
    if task.augment is not None:
        images = jax.vmap(task.augment)(masks.example_keys(len(images)), images)
    logits, updated = fast_in_loops(task.model, axis_name)(
        {"params": params, **collections},
        task.preprocess(images),
        **_asked_for(task.model, hparams, train=True, masks=masks),
        rngs={"dropout": masks.foreign_key()},
        mutable=list(collections),
    )
    return logits, updated


def _asked_for(model: nn.Module, hparams: HParams, train: bool, masks: Masks | None = None) -> dict[str, Any]:
    """Select the arguments that the model's `__call__` names."""
    offered = {"train": train, "deterministic": not train, "hparams": hparams, "masks": masks}
    return {name: value for name, value in (offered | hparams._asdict()).items() if asks_for(model, name)}


def asks_for(model: nn.Module, name: str) -> bool:
    """Whether the model's `__call__` has an argument of this name."""
    called = getattr(model, "nnx_class", type(model)).__call__
    return name in inspect.signature(called).parameters


def reads_rate(model: nn.Module) -> bool:
    """Whether a dropout rate can do anything in a network: it has a place for it, or uses its number.

    Modules of the user's own are traced on an image of MNIST's shape. One that fails there may use the rate.
    """
    if isinstance(model, ConvNet):
        return model.dropout != "none" and bool(model.features or model.dropout_sites == "flatten")
    if not (asks_for(model, "dropout_rate") or asks_for(model, "hparams")):
        return False
    task, keys = Task(model, lambda _: optax.identity()), streams(jax.random.key(0))

    def trained(rate: jax.Array) -> Any:
        hparams, images = config.HParams(dropout_rate=rate), jnp.zeros((1, 28, 28, 1), jnp.uint8)
        state = init_state(task, keys, images.shape[1:], hparams)
        return forward(task, state.params, state.collections, images, hparams, Masks(keys.dropout))

    try:
        traced = jax.make_jaxpr(trained)(jax.ShapeDtypeStruct((), jnp.float32)).jaxpr
    except Exception:  # of any type, as the module is the user's
        return True
    return any(used is traced.invars[0] for equation in traced.eqns for used in equation.invars)
