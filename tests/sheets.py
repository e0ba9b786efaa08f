"""Sheets of paper with a digit and something else, made from test digits.

    python tests/sheets.py RUN

prints for each kind of sheet which share of MNIST's test digits a trained network reads as it should, or is
warned of, and how often that is said of clean sheets.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Sheet = np.ndarray  # brightness from 0 to 1, 600 x 600
Draw = np.random.Generator
SIDE, TIMES = 600, 8
BLANK = np.zeros((28, 28, 1), np.uint8)


def enlarged(image: np.ndarray, times: float) -> np.ndarray:
    size = round(times * 28), round(times * 28)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) / 255


def clean(image: np.ndarray, draw: Draw, paper: float = 1.0) -> Sheet:
    """A digit in the middle, enlarged eight times, dark on white."""
    sheet = np.full((SIDE, SIDE), paper)
    add(sheet, image, SIDE // 2, SIDE // 2, TIMES)
    return sheet


def add(sheet: Sheet, image: np.ndarray, y: int, x: int, times: float) -> None:
    drawn = enlarged(image, times)
    top, left = y - len(drawn) // 2, x - len(drawn) // 2
    part = sheet[top : top + len(drawn), left : left + len(drawn)]
    part[:] = np.minimum(part, 1 - drawn[: part.shape[0], : part.shape[1]])


def speck(size: int, number: int = 1) -> Callable[[np.ndarray, Draw], Sheet]:
    def make(image: np.ndarray, draw: Draw) -> Sheet:
        sheet = clean(image, draw)
        for _ in range(number):
            y, x = draw.integers(5, SIDE - 5 - size, 2)
            sheet[y : y + size, x : x + size] = draw.uniform(0, 0.5)
        return sheet

    return make


def corner(image: np.ndarray, draw: Draw) -> Sheet:
    sheet = clean(image, draw)
    sheet[20:23, 30:33] = 0.1
    return sheet


def ruled(pitch: int, thick: int, grey: float, squared: bool = False) -> Callable[[np.ndarray, Draw], Sheet]:
    def make(image: np.ndarray, draw: Draw) -> Sheet:
        sheet, start = clean(image, draw), draw.integers(pitch)
        lines = (np.arange(SIDE) - start) % pitch < thick
        sheet[lines] = np.minimum(sheet[lines], grey)
        if squared:
            sheet[:, lines] = np.minimum(sheet[:, lines], grey)
        return sheet

    return make


def tilted(image: np.ndarray, draw: Draw) -> Sheet:
    """Ruled, and photographed at an angle of one degree."""
    sheet, (y, x) = clean(image, draw), np.mgrid[:SIDE, :SIDE]
    lines = (y + x * np.tan(np.pi / 180) - draw.integers(50)) % 50 < 2
    return np.where(lines, np.minimum(sheet, 0.6), sheet)


def jpeg(
    quality: int, make: Callable[[np.ndarray, Draw], Sheet] = clean
) -> Callable[[np.ndarray, Draw], Sheet]:
    def compressed(image: np.ndarray, draw: Draw) -> Sheet:
        file = io.BytesIO()
        Image.fromarray(np.round(make(image, draw) * 255).astype(np.uint8)).save(
            file, "JPEG", quality=quality
        )
        return np.asarray(Image.open(file)) / 255

    return compressed


def beside(other: np.ndarray, right: int, times: float = TIMES) -> Callable[[np.ndarray, Draw], Sheet]:
    """A second digit to the right."""

    def make(image: np.ndarray, draw: Draw) -> Sheet:
        sheet = clean(image, draw)
        add(sheet, other, SIDE // 2, SIDE // 2 + right, times)
        return sheet

    return make


def blocks(image: np.ndarray, draw: Draw) -> Sheet:
    """Enlarged without smoothing."""
    sheet = np.full((SIDE, SIDE), 1.0)
    start = (SIDE - 28 * TIMES) // 2
    sheet[start:-start, start:-start] -= np.kron(image / 255, np.ones((TIMES, TIMES)))
    return sheet


def small(times: float) -> Callable[[np.ndarray, Draw], Sheet]:
    def make(image: np.ndarray, draw: Draw) -> Sheet:
        sheet = np.full((SIDE, SIDE), 1.0)
        add(sheet, image, SIDE // 2, SIDE // 2, times)
        return sheet

    return make


def kinds(other: np.ndarray) -> dict[str, Callable[[np.ndarray, Draw], Sheet]]:
    """Return makers of sheets by name; `other` is the second digit."""
    return {
        "clean": clean,
        "grey paper": lambda image, draw: 0.1 + 0.8 * clean(image, draw),
        "a spot of 3 pixels in a corner": corner,
        "a speck of 1 pixel": speck(1),
        "a speck of 3 pixels": speck(3),
        "a speck of 12 pixels": speck(12),
        "20 specks of 4 pixels": speck(4, 20),
        "ruled every 50 pixels": ruled(50, 2, 0.6),
        "ruled every 30, dark": ruled(30, 3, 0.1),
        "ruled every 80, faint": ruled(80, 1, 0.9),
        "squared, 20 pixels": ruled(20, 1, 0.7, squared=True),
        "squared, 40 pixels, dark": ruled(40, 2, 0.3, squared=True),
        "ruled, tilted by 1 degree": tilted,
        "JPEG, quality 75": jpeg(75),
        "JPEG, quality 50": jpeg(50),
        "JPEG, quality 30": jpeg(30),
        "JPEG, quality 10": jpeg(10),
        "not smoothed": blocks,
        "not smoothed, quality 50": jpeg(50, blocks),
        "not smoothed, quality 30": jpeg(30, blocks),
        "a small digit, quality 50": jpeg(50, small(2)),
        "a small digit, quality 30": jpeg(30, small(2)),
        "ruled, quality 50": jpeg(50, ruled(50, 2, 0.6)),
        "squared, quality 50": jpeg(50, ruled(40, 2, 0.6, squared=True)),
        "a speck, quality 50": jpeg(50, speck(4)),
        "a second digit, far": beside(other, 230, 4),
        "a second digit, near": beside(other, 190),
        "a second digit, smaller": beside(other, 150, 3),
    }


def main() -> None:
    from cnnjax.data import Dataset, load
    from cnnjax.deploy import digits, paper
    from cnnjax.deploy.likeness import UNLIKE, shares_as_far
    from cnnjax.deploy.predict import probabilities, trained
    from cnnjax.errors import UserError

    network, loaded = trained(Path(sys.argv[1])), load("mnist", None)
    test, number = loaded.test, int(sys.argv[2]) if len(sys.argv) > 2 else 100
    names = list(kinds(test.images[0, ..., 0]))
    read, plain, said = [], [], []

    def read_from(sheet: Sheet) -> np.ndarray | None:
        try:
            return digits.digit(sheet)[..., None]
        except UserError:  # blank
            return None

    for name in names:
        draw = np.random.default_rng(0)
        for i in range(number):
            sheet = kinds(test.images[number + i, ..., 0])[name](test.images[i, ..., 0], draw)
            cleaned = paper.cleaned(sheet)
            found, before = read_from(cleaned.pixels), read_from(sheet)
            read.append(BLANK if found is None else found)
            plain.append(BLANK if before is None else before)
            refused = found is None  # as blank, which is said
            said.append(refused or any("crop" in remark or "edge" in remark for remark in cleaned.remarks))
    labels = np.tile(test.labels[:number], len(names))
    right, before = (
        probabilities(network, Dataset(np.stack(images), labels, loaded.class_names)).argmax(1) == labels
        for images in (read, plain)
    )
    warned = said | (shares_as_far(np.stack(read), loaded.train, test) <= UNLIKE)
    print(f"{'sheet':32}   right  warned  either  right if nothing is left out")
    shares = (part.reshape(-1, number).mean(1) for part in (right, warned, right | warned, before))
    for name, *each in zip(names, *shares, strict=True):
        print(f"{name:32}", *(f"{share:7.0%}" for share in each))


if __name__ == "__main__":
    main()
