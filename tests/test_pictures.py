"""Picture files of every mode and format are read, or refused with a one-line message."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnjax.data import load
from cnnjax.data.image_files import read_all
from cnnjax.deploy import pictures
from cnnjax.deploy.digits import digit
from cnnjax.errors import UserError

DIGIT = load("fashion_mnist", TINY).test.images[0, ..., 0]
DRAWN = np.pad(np.kron(255 - DIGIT, np.ones((4, 4), np.uint8)), 20, constant_values=255)
"""Dark on white, enlarged four times, on a larger canvas."""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgba(drawn: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """Coloured ink on a transparent background."""
    values = np.zeros((*drawn.shape, 4), np.uint8)
    values[..., :3] = colour
    values[..., 3] = 255 - drawn
    return Image.fromarray(values)


def tinted(drawn: np.ndarray) -> Image.Image:
    return Image.merge("RGB", [Image.fromarray(drawn)] * 2 + [Image.new("L", drawn.shape[::-1], 255)])


def palette_with_a_hole(drawn: np.ndarray) -> bytes:
    """Index 0 is transparent black, index 1 is the black ink."""
    image = Image.fromarray((drawn < 128).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    return saved(image, "PNG", transparency=0)


GREY = Image.fromarray(DRAWN)
WHOLE: dict[str, Callable[[], bytes]] = {
    "grey PNG": lambda: saved(GREY, "PNG"),
    "light on dark": lambda: saved(Image.fromarray(255 - DRAWN), "PNG"),
    "BMP": lambda: saved(GREY, "BMP"),
    "GIF": lambda: saved(GREY, "GIF"),
    "TIFF": lambda: saved(GREY, "TIFF", compression="tiff_lzw"),
    "PGM": lambda: saved(GREY, "PPM"),
    "WebP": lambda: saved(GREY.convert("RGB"), "WEBP", lossless=True),
    "16-bit PNG": lambda: saved(Image.fromarray(DRAWN.astype(np.uint16) * 257), "PNG"),
    "12 bits in 16": lambda: saved(Image.fromarray(DRAWN.astype(np.uint16) * 16), "TIFF"),
    "32-bit TIFF": lambda: saved(Image.fromarray(DRAWN.astype(np.int32) * 1000), "TIFF"),
    "float TIFF": lambda: saved(Image.fromarray(DRAWN.astype(np.float32) * -7), "TIFF"),
    "RGB": lambda: saved(tinted(DRAWN), "PNG"),
    "CMYK TIFF": lambda: saved(GREY.convert("CMYK"), "TIFF"),
    "LAB TIFF": lambda: saved(Image.merge("LAB", [GREY, GREY, GREY]), "TIFF"),
    "opaque RGBA": lambda: saved(GREY.convert("RGBA"), "PNG"),
    "black on nothing": lambda: saved(rgba(DRAWN, (0, 0, 0)), "PNG"),
    "white on nothing": lambda: saved(rgba(DRAWN, (255, 255, 255)), "PNG"),
    "grey and alpha": lambda: saved(
        Image.merge("LA", [Image.new("L", GREY.size), Image.fromarray(255 - DRAWN)]), "PNG"
    ),
    "palette": lambda: saved(GREY.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "palette with transparency": lambda: palette_with_a_hole(DRAWN),
    "black and white": lambda: saved(GREY.convert("1", dither=Image.Dither.NONE), "TIFF"),
    "JPEG": lambda: saved(GREY, "JPEG", quality=95),
    "AVIF": lambda: saved(GREY.convert("RGB"), "AVIF", quality=95),
}
COARSE = {"palette with transparency", "black and white", "JPEG", "AVIF"}


def read(content: bytes, directory: Path) -> pictures.Picture:
    path = directory / "picture"
    path.write_bytes(content)
    return pictures.read(path)


def refused(content: bytes, directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        digit(read(content, directory).pixels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_a_digit_is_the_same_in_every_file_format(name: str, tmp_path: Path) -> None:
    picture = read(WHOLE[name](), tmp_path)
    assert not picture.animated
    assert picture.pixels.min() >= 0 and picture.pixels.max() <= 1
    apart = np.abs(digit(picture.pixels).astype(int) - DIGIT)
    assert apart.mean() < 12 if name in COARSE else apart.max() <= 3


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    blank = Image.new("L", GREY.size)
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {} if kind == "TIFF" else {"lossless": True} if kind == "WEBP" else {"duration": 50}
        content = saved(
            GREY.convert("RGB"), kind, save_all=True, append_images=[blank.convert("RGB")], **options
        )
        picture = read(content, tmp_path)
        assert picture.animated, kind
        assert np.abs(digit(picture.pixels).astype(int) - DIGIT).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    turned = read(saved(GREY.transpose(Image.Transpose.ROTATE_90), kind, exif=exif), tmp_path)
    plain = read(saved(GREY, kind), tmp_path)
    assert np.abs(digit(turned.pixels).astype(int) - digit(plain.pixels)).mean() < 6


def test_a_large_picture_is_downsampled(tmp_path: Path) -> None:
    """2,304 pixels wide with ink in one of nine pixels: averaging gives grey, at a limited size."""
    dotted = np.full((2304, 2304), 255, np.uint8)
    drawn = np.kron(255 - DIGIT, np.ones((72, 72), np.uint8))
    dotted[144:2160:3, 144:2160:3] = drawn[::3, ::3]
    picture = read(saved(Image.fromarray(dotted), "PNG"), tmp_path)
    assert picture.pixels.shape == (1152, 1152)
    assert np.abs(digit(picture.pixels).astype(int) - DIGIT).mean() < 12


@pytest.mark.parametrize("shape", [(64, 2048), (2048, 64)])
def test_the_longer_side_decides_how_far_it_is_downsampled(shape: tuple[int, int], tmp_path: Path) -> None:
    picture = read(saved(Image.fromarray(np.full(shape, 255, np.uint8)), "PNG"), tmp_path)
    assert picture.pixels.shape == (shape[0] // 2, shape[1] // 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_is_as_bright_as_its_luma(mode: str, tmp_path: Path) -> None:
    """That of ITU-R BT.601, in which green is brightest, however the file keeps the colour."""
    for colour, luma in (("red", 0.299), ("lime", 0.587), ("blue", 0.114), ("white", 1.0)):
        picture = read(saved(Image.new(mode, (3, 2), colour), "PNG"), tmp_path)
        np.testing.assert_allclose(picture.pixels, luma, atol=0.003)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none.png", "no such file"), ("", "not a file"), ("pipe", "not a file")):
        with pytest.raises(UserError, match=message):
            pictures.read(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"PK\x03\x04", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"]
)
def test_files_that_are_not_pictures(content: bytes, tmp_path: Path) -> None:
    assert "not a picture" in refused(content, tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"])
def test_truncated_files(kind: str, tmp_path: Path) -> None:
    content = saved(tinted(DRAWN), kind)
    for share in (0.4, 0.7, 0.9):
        line = refused(content[: int(share * len(content))], tmp_path)
        assert "cut short" in line or "not a picture" in line, line


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "F"])
def test_blank_pictures(mode: str, tmp_path: Path) -> None:
    assert "blank" in refused(saved(Image.new(mode, (40, 30)), "TIFF"), tmp_path)


def test_pixels_that_are_not_numbers(tmp_path: Path) -> None:
    values = DRAWN.astype(np.float32)
    for odd in (np.nan, np.inf):
        values[3, 3] = odd
        assert "not numbers" in refused(saved(Image.fromarray(values), "TIFF"), tmp_path)


def png(width: int, height: int) -> bytes:
    """A black PNG, a thousand times smaller than its pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(10**7, height * (1 + width // 8))), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 62, 0, 0, 62, 40, width, height, 1, 1, 0, 0, 0, 0, 2, 0)


def gif(width: int, height: int) -> bytes:
    content = bytearray(saved(GREY, "GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


HUGE = {
    "PNG": png(40_000, 40_000),
    "a little too large": png(7_100, 7_100),
    "wide PNG": png(2**31 - 1, 1),
    "PGM": b"P5 100000 100000 255\n" + bytes(100),
    "BMP": bmp(100_000, 100_000),
    "GIF": gif(65_535, 65_535),
}


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Decompression bombs are refused before they are decoded; the largest that is read comes last."""
    for name, content in (HUGE | {"the largest": png(7000, 7000)}).items():
        (tmp_path / name).write_bytes(content)
    code = (
        "import resource, sys; from pathlib import Path; from PIL import Image\n"
        "from cnnjax.deploy import digits, pictures\n"
        "for name in sys.argv[1:]:\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    try: digits.digit(pictures.read(Path(name)).pixels)\n"
        "    except Exception as error: print(error)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    root, names = Path(__file__).parents[1], [str(tmp_path / name) for name in (*HUGE, "the largest")]
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert all("50,000,000 pixels" in line for line in lines[:-2:2]) and "blank" in lines[-2], lines
    grown = [int(line) * (1 if sys.platform == "darwin" else 1024) for line in lines[1::2]]
    assert len(grown) == len(names) and max(grown[:-1]) < 30 * 2**20 and grown[-1] < 300 * 2**20


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_pictures_without_pixels(size: tuple[int, int], tmp_path: Path) -> None:
    for content in (png(*size), bmp(*size), b"P5 %d %d 255\n" % size):
        refused(content, tmp_path)


# Fuzzing: any file gives a picture or a one-line message

SMALL = Image.fromarray(np.kron(255 - DIGIT[::2, ::2], np.ones((2, 2), np.uint8)))
SEEDS = [
    *(saved(SMALL, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM")),
    saved(SMALL.convert("RGB"), "WEBP"),
    saved(SMALL.convert("RGB"), "AVIF"),
    saved(SMALL, "TIFF", compression="tiff_deflate"),
    saved(SMALL.convert("1"), "TIFF", compression="group4"),
    saved(SMALL.convert("CMYK"), "JPEG", progressive=True),
    saved(rgba(np.asarray(SMALL), (9, 9, 9)), "PNG"),
    saved(SMALL.convert("P"), "PNG"),
    saved(Image.fromarray(np.asarray(SMALL, np.uint16) * 257), "PNG"),
    saved(SMALL, "GIF", save_all=True, append_images=[Image.new("L", SMALL.size)]),
]
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 2**16), st.integers(0, 7)),
        st.tuples(st.just("byte"), st.integers(0, 100), st.integers(0, 255)),
        st.tuples(st.just("word"), st.integers(0, 100), st.sampled_from([0, 1, 2**15, 2**31 - 1, 2**32 - 1])),
        st.tuples(st.just("cut"), st.integers(0, 2**16), st.integers(1, 2**10)),
        st.tuples(st.just("double"), st.integers(0, 2**16), st.integers(1, 2**10)),
    ),
    max_size=5,
)


def edited(content: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    raw = bytearray(content)
    for kind, where, what in edits:
        at = where % max(1, len(raw))
        if kind == "flip":
            raw[at : at + 1] = bytes(value ^ 1 << what for value in raw[at : at + 1])
        elif kind == "byte":
            raw[at : at + 1] = bytes([what])
        elif kind == "word":
            raw[at : at + 4] = struct.pack(">I" if what % 2 else "<I", what)
        elif kind == "cut":
            del raw[at : at + what]
        else:
            raw[at:at] = raw[at : at + what]
    return bytes(raw)


def one_line_or_a_picture(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    try:
        picture = pictures.read(path)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert picture.pixels.ndim == 2 and max(picture.pixels.shape) < 2 * pictures.LONGEST
    assert picture.pixels.min() >= 0 and picture.pixels.max() <= 1
    try:
        assert digit(picture.pixels).shape == (28, 28)
    except UserError as error:
        assert "blank" in str(error)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), EDITS)
def test_corrupted_pictures(tmp_path: Path, content: bytes, edits: list[tuple[str, int, int]]) -> None:
    one_line_or_a_picture(edited(content, edits), tmp_path / "picture")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"", *(content[:8] for content in SEEDS)]), st.binary(max_size=300))
@example(b"", b"BM")
def test_random_bytes(tmp_path: Path, start: bytes, rest: bytes) -> None:
    one_line_or_a_picture(start + rest, tmp_path / "picture")


MODES = ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]


@given(st.sampled_from(MODES), st.integers(1, 60), st.integers(1, 60), st.randoms(use_true_random=False))
def test_every_mode_and_size(mode: str, width: int, height: int, rng: object) -> None:
    """Covers modes that no listed format stores but that a Pillow plugin may return."""
    image = Image.new(mode, (width, height))
    size = len(image.tobytes())
    image.frombytes(np.random.default_rng(width * height).integers(0, 64, size, np.uint8).tobytes())
    file = io.BytesIO()
    try:
        image.save(file, "TIFF")
    except (OSError, KeyError):
        return
    pixels = pictures._brightness(pictures._small(Image.open(io.BytesIO(file.getvalue()))))
    assert pixels.shape == (height, width) and 0 <= pixels.min() <= pixels.max() <= 1


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("L", (3000, 3000)).save(content, "jpeg", progressive=True)
    raw, marker = content.getvalue(), b"\xff\xda"
    scans = raw.count(marker)
    (tmp_path / "few.jpg").write_bytes(raw)
    assert pictures.read(tmp_path / "few.jpg").pixels.shape == (1500, 1500)
    last = raw[raw.rindex(marker) : -2]
    (tmp_path / "many.jpg").write_bytes(raw[:-2] + last * 60 + raw[-2:])
    began = time.monotonic()
    with pytest.raises(UserError, match=f"{scans + 60} scans over 9,000,000 pixels"):
        pictures.read(tmp_path / "many.jpg")
    with pytest.raises(UserError, match=f"{scans + 60} scans"):
        read_all([tmp_path / "many.jpg"])
    assert time.monotonic() - began < 1
