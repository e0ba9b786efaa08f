"""Convolution, pooling and dropout networks in JAX and Flax: pure functions, explicit keys, evidence."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnjax.api import Run, ablate, fit, load

__version__ = "0.1.0"
__all__ = ["Run", "ablate", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import `fit` and what else `cnnjax.api` has when it is first used: the core does without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("cnnjax.api"), name)
