"""Read picture files as brightness, with Pillow."""

import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from cnnjax.data.image_files import FORMATS, require_few_scans
from cnnjax.errors import UserError
from cnnjax.files.misspelt import did_you_mean
from cnnjax.shapes import Float64, UInt8

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 50_000_000
"""Limit against decompression bombs; decoding this many pixels takes up to a gigabyte."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601, as in Pillow)."""
Grey = Float64[np.ndarray, "height width"]
Colours = UInt8[np.ndarray, "height width 3"]
LONGEST = 1024
"""Pictures are downsampled by integer factors, but the longer side stays at least this long."""


class Picture(NamedTuple):
    """A decoded picture."""

    pixels: Grey  # brightness from 0 (black) to 1
    animated: bool  # whether `pixels` are the first of several frames
    colours: Colours  # RGB, on white where it is transparent


def read(path: Path) -> Picture:
    """Read a picture of any mode, with colours as luma and the orientation that its EXIF data give.

    Transparent parts become white, or black if the drawing is light. Values without a fixed range (more than
    8 bits, or floating point) are stretched to [0, 1].

    Raises:
        UserError: the file cannot be opened, is not a picture, has no pixels or too many, or is damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file{did_you_mean(path, Path.is_file)}")
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
        require_few_scans(path, width * height)
        animated = bool(getattr(image, "is_animated", False))
        image.load()
        pixels = _brightness(ImageOps.exif_transpose(_small(image)))
        colours = _colours(image, pixels)
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
    return Picture(pixels, animated, colours)


def resized(picture: Picture, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "height width channels"]:
    """Resize a picture to (height, width, channels); one of that size stays as it is.

    Raises:
        UserError: the images of the data set have neither one channel nor three.
    """
    from PIL import Image

    height, width, channels = shape
    if channels not in (1, 3):
        raise UserError(
            f"the data set has {channels} channels a pixel, and pictures have 1 or 3: use --first N"
        )
    grey = np.round(picture.pixels * 255).astype(np.uint8)
    image = Image.fromarray(grey if channels == 1 else picture.colours)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(shape)


def _colours(image: "Image.Image", pixels: Grey) -> Colours:
    """Return RGB of the size of `pixels`, on white where it is transparent."""
    from PIL import ImageOps

    if image.mode.startswith(("I", "F", "LAB")):
        return np.repeat(np.round(pixels * 255).astype(np.uint8)[..., None], 3, axis=2)
    plain = ImageOps.exif_transpose(_reduced(image.convert("RGBA")))
    values = np.asarray(plain, np.float64)
    opacity = values[..., 3:] / 255
    return np.round(opacity * values[..., :3] + 255 * (1 - opacity)).astype(np.uint8)


def _small(image: "Image.Image") -> "Image.Image":
    """Downsample a picture and convert it to mode L, RGBA (if parts may be transparent) or F."""
    if image.mode.startswith(("I", "F")):
        plain = image.convert("F")
    elif image.mode == "LAB":
        plain = image.getchannel("L")
    else:
        plain = image.convert("RGBA" if image.has_transparency_data else "L")
    return _reduced(plain)


def _reduced(image: "Image.Image") -> "Image.Image":
    return image.reduce(max(1, max(image.size) // LONGEST))


def _brightness(small: "Image.Image") -> Grey:
    values = np.asarray(small, np.float64)
    if small.mode == "L":
        return values / 255
    if small.mode == "RGBA":
        opacity = values[..., 3] / 255
        drawn = opacity * (values[..., :3] @ LUMA / 255)
        return drawn + (1 - opacity) * (drawn.sum() < 0.5 * opacity.sum())
    low, high = values.min(), values.max()
    return (values - low) / (high - low if high > low else 1)
