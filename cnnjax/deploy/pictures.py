"""Read picture files as brightness, with Pillow."""

import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cnnjax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")
"""Pillow starts other programs to read some of the formats that are not listed."""
MOST_PIXELS = 50_000_000
"""Limit against decompression bombs; decoding this many pixels takes up to a gigabyte."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601, as in Pillow)."""
LONGEST = 1024
"""Pictures are downsampled by integer factors, but the longer side stays at least this long."""


class Picture(NamedTuple):
    """A decoded picture."""

    pixels: npt.NDArray[np.float64]  # f64[height, width], brightness from 0 (black) to 1
    animated: bool  # whether `pixels` are the first of several frames


def read(path: Path) -> Picture:
    """Read a picture of any mode, with colours as luma and the orientation that its EXIF data give.

    Transparent parts become white, or black if the drawing is light. Values without a fixed range (more than
    8 bits, or floating point) are stretched to [0, 1].

    Raises:
        UserError: the file cannot be opened, is not a picture, has no pixels or too many, or is damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():  # reading a pipe or a device may never end
        raise UserError(f"{path} is not a file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit is above ours, and damage is reported below
        return _decoded(file, path)


def _decoded(file: IO[bytes], path: Path) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    too_many = f"{path} has more than {MOST_PIXELS:,} pixels; make it smaller"
    try:
        image = Image.open(file, formats=FORMATS)
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UserError(too_many)
        if width * height == 0:
            raise UserError(f"{path} has no pixels")
        animated = bool(getattr(image, "is_animated", False))
        image.load()
        pixels = _brightness(ImageOps.exif_transpose(_small(image)))
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture in any of these formats: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise UserError(too_many) from None
    except Exception as error:  # Pillow raises many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is cut short or damaged: {reason}") from error
    if not np.isfinite(pixels).all():
        raise UserError(f"{path} has pixels that are not numbers")
    return Picture(pixels, animated)


def _small(image: "Image.Image") -> "Image.Image":
    """Downsample a picture and convert it to mode L, RGBA (if parts may be transparent) or F."""
    if image.mode.startswith(("I", "F")):
        plain = image.convert("F")
    elif image.mode == "LAB":
        plain = image.getchannel("L")
    else:
        plain = image.convert("RGBA" if image.has_transparency_data else "L")
    return plain.reduce(max(1, max(image.size) // LONGEST))


def _brightness(small: "Image.Image") -> npt.NDArray[np.float64]:
    values = np.asarray(small, np.float64)
    if small.mode == "L":
        return values / 255
    if small.mode == "RGBA":
        opacity = values[..., 3] / 255
        drawn = opacity * (values[..., :3] @ LUMA / 255)
        return drawn + (1 - opacity) * (drawn.sum() < 0.5 * opacity.sum())
    low, high = values.min(), values.max()
    return (values - low) / (high - low if high > low else 1)
