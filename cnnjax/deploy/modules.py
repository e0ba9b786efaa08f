"""The layers of any Linen module, in the order in which they run."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from cnnjax.config import HParams
from cnnjax.errors import ArgumentError, one_line
from cnnjax.keys import streams
from cnnjax.optimizers import make_optimizer
from cnnjax.task import Task, init_state

Path = tuple[str, ...]


class Row(NamedTuple):
    """A layer: a module that calls no other, or the own variables of one that does."""

    name: str  # its path: "block1/Conv_0"
    kind: str  # its class
    shape: tuple[int, ...] | None  # of its output for one example; None if that is no array
    parameters: int
    fixed: int  # numbers that no gradient changes, such as BatchNorm's statistics


def modules(model: nn.Module, image_shape: tuple[int, ...], hparams: Any = None) -> list[Row]:
    """Return the layers of a model for images of (height, width, channels).

    A module that is called several times has one row, with the shape of its last output. The layers of an NNX
    module behind Flax's bridge are not seen apart.

    Args:
        model: any Linen module that `Task` takes.
        image_shape: of one example.
        hparams: what the model reads; `cnnjax.config.HParams()` by default.

    Raises:
        ArgumentError: the model fails on such images.
    """
    calls: dict[Path, tuple[str, tuple[int, ...] | None]] = {}

    def record(call: Any, arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*arguments, **options)
        if context.method_name == "__call__":
            shape = getattr(out, "shape", None)
            kind = getattr(context.module, "nnx_class", type(context.module)).__name__
            calls[context.module.path] = kind, None if shape is None else tuple(shape[1:])
        return out

    task = Task(model, make_optimizer("sgd", "constant", 1))
    init = partial(init_state, task, streams(jax.random.key(0)), image_shape, hparams or HParams())
    try:
        with nn.intercept_methods(record):
            state = jax.eval_shape(init)
    except Exception as error:
        size = " x ".join(map(str, image_shape))
        raise ArgumentError(f"the network fails on images of {size}: {one_line(error)}") from error
    trained, fixed = _numbers(state.params, calls), Counter[Path]()
    for collection in state.collections.values():
        fixed += _numbers(collection, calls)
    outer = {path[:depth] for path in calls for depth in range(len(path))}
    return [
        Row("/".join(path) or kind, kind, shape, trained[path], fixed[path])
        for path, (kind, shape) in calls.items()
        if path not in outer or trained[path] or fixed[path]
    ]


def _numbers(variables: Any, calls: Iterable[Path]) -> Counter[Path]:
    """Count the numbers in a collection by the innermost module that holds them."""
    counts, called = Counter[Path](), set(calls)
    for keys, leaf in jax.tree.leaves_with_path(variables):
        path = tuple(str(key.key) for key in keys if isinstance(key, jax.tree_util.DictKey))
        holder = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in called)
        counts[holder] += math.prod(leaf.shape)
    return counts
