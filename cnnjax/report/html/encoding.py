"""Arrays and images as base64, in the page itself."""

import base64
import io

import numpy as np
from PIL import Image


def encoded(values: np.ndarray) -> str:
    """Return the bytes of an array in base64; floats as little-endian float32."""
    if values.dtype.kind == "f":
        values = values.astype("<f4")
    return base64.b64encode(values.tobytes()).decode()


def png_uri(content: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def ink_uri(image: np.ndarray) -> str:
    """Return an image u8[height, width, 1] as black ink on a transparent ground; bright pixels are ink."""
    layers = np.concatenate([np.zeros_like(image), image], axis=-1)
    content = io.BytesIO()
    Image.fromarray(layers).save(content, "png", optimize=True)
    return png_uri(content.getvalue())
