"""Arrays and images as base64, in the page itself."""

import base64
import io

import numpy as np
from PIL import Image

from cnnjax.shapes import UInt8

LARGE = 64
"""Images of more pixels a side are not shown as squares of colour."""


def encoded(values: np.ndarray) -> str:
    """Return the bytes of an array in base64; floats as little-endian float32."""
    if values.dtype.kind == "f":
        values = values.astype("<f4")
    return base64.b64encode(values.tobytes()).decode()


def png_uri(content: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def picture(image: UInt8[np.ndarray, "height width channels"]) -> tuple[str, str]:
    """Return the class of the style sheet that shows an image, and its data URI.

    Grey images are ink, RGB images are shown as they are, and of others the first channel, in grey.
    """
    if image.shape[2] == 1:
        return "ink", ink_uri(image)
    content = io.BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(content, "png", optimize=True)
    return "photo large" if max(image.shape[:2]) > LARGE else "photo", png_uri(content.getvalue())


def ink_uri(image: UInt8[np.ndarray, "height width 1"]) -> str:
    """Return an image as black ink on a transparent ground; bright pixels are ink."""
    layers = np.concatenate([np.zeros_like(image), image], axis=-1)
    content = io.BytesIO()
    Image.fromarray(layers).save(content, "png", optimize=True)
    return png_uri(content.getvalue())
