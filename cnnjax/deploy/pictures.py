"""Picture files, read through Pillow as brightness: the edge in front of `cnnjax.deploy.digits`."""

import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cnnjax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")
"""What is tried; Pillow would start other programs for some of the rest."""
MOST_PIXELS = 50_000_000
"""A file may promise billions of pixels in a few bytes; decoding so many takes up to a gigabyte."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601), which Pillow uses too."""
LONGEST = 1024
"""Pictures are averaged down by whole factors while the longer side stays at least this long."""


class Picture(NamedTuple):
    """What was read from a file."""

    pixels: npt.NDArray[np.float64]  # f64[height, width], brightness from 0 (black) to 1
    animated: bool  # then these are the first frame's


def read(path: Path) -> Picture:
    """Read a picture of any mode: colours as luma, the way up that a camera noted.

    Transparent parts become white, or black where what is drawn is light. What has no fixed range (more than
    8 bits, or floating point) is stretched to 0 and 1.

    Raises:
        UserError: it cannot be opened, is no picture, has no pixels or too many, or is damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():  # reading a pipe or a device might never end
        raise UserError(f"{path} is not a file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit lies above ours, and damage is told below
        return _decoded(file, path)


def _decoded(file: IO[bytes], path: Path) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    too_many = f"{path} has more than {MOST_PIXELS:,} pixels, which is not read; make it smaller"
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
    except Exception as error:  # Pillow raises what it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is cut short or damaged: {reason}") from error
    if not np.isfinite(pixels).all():
        raise UserError(f"{path} has pixels that are not numbers")
    return Picture(pixels, animated)


def _small(image: "Image.Image") -> "Image.Image":
    """The picture, averaged down, in one of three modes: L, RGBA if parts may be transparent, or F."""
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
