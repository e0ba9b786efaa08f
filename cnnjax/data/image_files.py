"""Image files of one size as one array, with Pillow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnjax.errors import UserError, one_line
from cnnjax.shapes import UInt8

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")
"""Pillow starts other programs to read some of the formats that are not listed."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm")
GREY = ("1", "L", "LA")
MOST_SCANNED = 500_000_000
"""Pixels times scans of a progressive JPEG at most, a few seconds of work; the usual number is ten."""
START_OF_JPEG = b"\xff\xd8"
START_OF_SCAN = b"\xff\xda"


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def require_few_scans(path: Path, pixels: int) -> None:
    """Raise `UserError` if a picture of so many pixels is a JPEG that takes long to decode.

    A small file can have any number of scans, and each is a pass over all pixels.
    """
    with path.open("rb") as file:
        scans = file.read().count(START_OF_SCAN) if file.read(2) == START_OF_JPEG else 0
    if scans * pixels > MOST_SCANNED:
        raise UserError(f"{path} is a JPEG of {scans} scans over {pixels:,} pixels; save it as PNG")


def read_all(paths: Sequence[Path]) -> UInt8[np.ndarray, "n height width channels"]:
    """Read image files: one channel if all are grey, else RGB.

    Raises:
        UserError: a file cannot be read, or two images differ in size.
    """
    from PIL import Image

    decoded, size, grey = [], None, True
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                if size is not None and image.size != size:
                    raise UserError(
                        f"{path} is {image.width} x {image.height} and {paths[0]} is {size[0]} x {size[1]}; "
                        "resize all images to one size"
                    )
                size = image.size
                require_few_scans(path, image.width * image.height)
                if image.mode in GREY:
                    decoded.append(np.asarray(image.convert("L"))[..., None])
                else:
                    grey = False
                    decoded.append(np.asarray(image.convert("RGB")))
        except UserError:
            raise
        except Exception as error:  # Pillow raises many types
            raise UserError(
                f"{path}: not an image that can be read ({one_line(error)}); repair or remove it"
            ) from error
    return np.stack(decoded if grey else [np.broadcast_to(image, (*image.shape[:2], 3)) for image in decoded])
