"""Shapes and dtypes as annotations: `Float32[Array, "n classes"]`.

Arrays are `Array` in JAX and `np.ndarray` in NumPy. The annotations come from jaxtyping, whose import hook
checks them in the tests and nowhere else. Where jaxtyping is not installed, as on a machine that has JAX,
Flax, optax and NumPy alone, they are names without a check.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Key, UInt, UInt8, UInt32
else:
    try:
        from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Key, UInt, UInt8, UInt32
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, shape: Any) -> Any:
                return Any

        Bool = Float = Float32 = Float64 = Int = Int32 = Key = UInt = UInt8 = UInt32 = _Unchecked

Floats = Float[np.ndarray, "..."]
"""NumPy floats of any shape."""

if TYPE_CHECKING:
    Scalar = float | Float32[Array, ""]
    Index = int | Int32[Array, ""] | UInt32[Array, ""]


def __getattr__(name: str) -> Any:
    """Import JAX for `Array`, `Scalar` and `Index`: modules that read data and pictures do without it."""
    if name not in ("Array", "Scalar", "Index"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jax import Array

    index = int | Int32[Array, ""] | UInt32[Array, ""]
    return {"Array": Array, "Scalar": float | Float32[Array, ""], "Index": index}[name]
