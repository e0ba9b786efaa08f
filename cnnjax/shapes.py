"""Shapes and dtypes as annotations: `Float32[Array, "n classes"]`.

Arrays are `Array` in JAX and `np.ndarray` in NumPy. The annotations come from jaxtyping, whose import hook
checks them in the tests and nowhere else. Where jaxtyping is not installed, as on a machine that has JAX,
Flax, optax and NumPy alone, they are names without a check.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Int, Int32, Key, UInt8, UInt32
else:
    try:
        from jaxtyping import Bool, Float, Float32, Int, Int32, Key, UInt8, UInt32
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, shape: Any) -> Any:
                return Any

        Bool = Float = Float32 = Int = Int32 = Key = UInt8 = UInt32 = _Unchecked

Floats = Float[np.ndarray, "..."]
"""NumPy floats of any shape."""
Scalar = float | Float32[Array, ""]
"""A number in the program's text, or a traced one."""
Index = int | Int32[Array, ""] | UInt32[Array, ""]
"""A count or a position in the program's text, or a traced one."""
