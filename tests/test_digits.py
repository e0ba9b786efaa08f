"""Pictures of digits are converted to MNIST's format, and MNIST's own images do not change."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sheets
from helpers import MORE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnnjax.data import load
from cnnjax.deploy import paper
from cnnjax.deploy.digits import digit
from cnnjax.deploy.likeness import UNLIKE, distances, shares_as_far
from cnnjax.errors import UserError

# The tiny data set of the tests is drawn from MNIST, despite its name.
IMAGES = load("fashion_mnist", MORE).test.images[..., 0]
FAINT = 0.06  # of the strongest ink, at the edges, is cropped


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def crisp(image: np.ndarray) -> bool:
    """Whether the outermost rows and columns with ink have some that is not faint."""
    drawn, strong = image > 0, image > FAINT * image.max()
    return all((drawn.any(axis=axis) == strong.any(axis=axis)).all() for axis in (0, 1))


CRISP = [image for image in IMAGES if crisp(image)]


@pytest.mark.parametrize("times", [1, 2, 7])
@pytest.mark.parametrize("inverted", [False, True])
def test_mnist_images_are_unchanged(times: int, inverted: bool) -> None:
    """Except for the stretched range, 254 or 255 wide, and for faint ink at the edges."""
    apart = []
    for image in IMAGES:
        picture = np.kron(image / 255, np.ones((times, times)))
        back = digit(1 - picture if inverted else picture)
        apart.append(int(np.abs(back.astype(int) - image).max()))
    assert np.median(apart) <= 1
    assert np.mean(np.array(apart) <= 255 * FAINT + 1) > 0.97
    assert len(CRISP) > 0.8 * len(IMAGES)


@given(
    st.integers(0, len(CRISP) - 1),
    st.integers(1, 5),
    st.tuples(*[st.integers(1, 60)] * 4),
    st.booleans(),
    st.floats(0.2, 1.0),
    st.floats(0, 1),
)
def test_position_scale_and_contrast_do_not_matter(
    which: int,
    times: int,
    around: tuple[int, int, int, int],
    inverted: bool,
    contrast: float,
    level: float,
) -> None:
    top, bottom, left, right = around
    enlarged = np.kron(CRISP[which] / 255, np.ones((times, times)))
    picture = np.pad(enlarged, ((top, bottom), (left, right)))
    picture = level * (1 - contrast) + contrast * (1 - picture if inverted else picture)
    # Half a grey level of the picture counts as background.
    assert np.abs(digit(picture).astype(int) - CRISP[which]).max() <= 0.5 / contrast + 1


@pytest.mark.parametrize("name", ["noise", "shade"])
def test_noise_and_shading_have_little_effect(name: str) -> None:
    rng = np.random.default_rng(0)
    apart = []
    for image in IMAGES[:40]:
        picture = 0.1 + 0.8 * (1 - np.pad(np.kron(image / 255, np.ones((6, 6))), 40))
        if name == "noise":
            picture = picture + rng.normal(0, 0.04, picture.shape)
        else:
            picture = picture * np.linspace(0.8, 1, len(picture))[:, None]
        apart.append(distance(digit(picture), image))
    # Lines are 2 or 3 pixels wide; an image shifted by one pixel is at a distance of about 25.
    assert np.median(apart) < 6


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=80), elements=st.floats(0, 1))
)
def test_any_picture(picture: npt.NDArray[np.float64]) -> None:
    try:
        image = digit(picture)
    except UserError as error:
        assert "blank" in str(error)
        return
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() == 255
    rows, columns = np.nonzero(image)
    assert np.ptp(rows) < 20 and np.ptp(columns) < 20
    framed = np.pad(picture, 1)  # so that the background is certain
    assert np.abs(digit(1 - framed).astype(int) - digit(framed)).max() <= 1


@pytest.mark.parametrize(("drawn", "width"), [(25, 5), (38, 8), (1, 1)])
def test_the_longer_side_is_20_and_the_mass_is_centred(drawn: int, width: int) -> None:
    """The shorter side is rounded to whole pixels, of which there is one at least."""
    picture = np.zeros((300, 200))
    picture[20:120, 150 : 150 + drawn] = 1
    image = digit(picture)
    rows, columns = np.nonzero(image)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, width)
    assert abs(rows.mean() - 14) <= 0.5 and abs(columns.mean() - 14) <= 0.5
    np.testing.assert_array_equal(np.unique(image), [0, 255])
    assert np.ptp(np.nonzero(digit(picture, box=28))[0]) + 1 == 28


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (200, 200)])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_blank_picture_is_refused(shape: tuple[int, int], level: float) -> None:
    with pytest.raises(UserError, match="blank"):
        digit(np.full(shape, level))


def test_noise_alone_is_blank() -> None:
    with pytest.raises(UserError, match="blank"):
        digit(np.clip(np.random.default_rng(0).normal(0.9, 0.02, (500, 500)), 0, 1))


# The rest of the paper


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two images, either of which may be a pixel off centre."""
    shifts = (-1, 0, 1)
    return min(distance(np.roll(a, (y, x), (0, 1)), b) for y in shifts for x in shifts)


def read_or_warned(kind: str, number: int) -> float:
    """The share of sheets that give the digit of a clean sheet, or a warning."""
    good = 0
    for i in range(number):
        make = sheets.kinds(IMAGES[number + i])[kind]
        draw = np.random.default_rng(i)
        sheet = paper.cleaned(make(IMAGES[i], draw))
        warned = any("crop" in remark or "edge" in remark for remark in sheet.remarks)
        good += warned or apart(digit(sheet.pixels), digit(sheets.clean(IMAGES[i], draw))) < 10
    return good / number


@pytest.mark.parametrize("kind", ["a speck of 3 pixels", "ruled every 50 pixels", "JPEG, quality 30"])
def test_what_else_is_on_the_paper_is_left_out(kind: str) -> None:
    assert read_or_warned(kind, 3) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", sheets.kinds(IMAGES[0]))
def test_whatever_else_is_on_the_paper_is_left_out_or_said(kind: str) -> None:
    assert read_or_warned(kind, 15) >= 0.9


def test_what_was_left_out_is_said() -> None:
    draw, other = np.random.default_rng(0), IMAGES[1]
    assert paper.cleaned(sheets.clean(IMAGES[0], draw)).remarks == ()
    assert paper.cleaned(sheets.corner(IMAGES[0], draw)).remarks == ("1 speck left out",)
    (ruled,) = paper.cleaned(sheets.ruled(50, 2, 0.6)(IMAGES[0], draw)).remarks
    assert ruled == "ruled lines were left out"
    (second,) = paper.cleaned(sheets.beside(other, 230, 4)(IMAGES[0], draw)).remarks
    assert second.startswith("there are other drawings beside the one that is read")
    (edge,) = paper.cleaned(sheets.clean(IMAGES[0], draw)[270:]).remarks
    assert edge.startswith("the drawing reaches the edge of the picture")


@given(st.integers(0, len(IMAGES) - 1), st.integers(1, 5), st.booleans())
def test_a_clean_digit_stays_as_it_is(which: int, times: int, inverted: bool) -> None:
    """But for spots of a pixel or two, which some have."""
    picture = np.kron(IMAGES[which] / 255, np.ones((times, times)))
    sheet = paper.cleaned(1 - picture if inverted else picture)
    left_out = np.abs(sheet.pixels - (1 - picture if inverted else picture))
    assert left_out.sum() < 0.02 * picture.sum(), sheet.remarks


# Likeness


def test_distances_are_euclidean() -> None:
    known = IMAGES[:50]
    expected = [min(np.linalg.norm((a / 255.0) - (b / 255.0)) for b in known) for a in IMAGES[50:60]]
    np.testing.assert_allclose(distances(IMAGES[50:60], known, chunk=7), expected, rtol=1e-4)
    np.testing.assert_allclose(distances(known, known), 0, atol=0.02)


def test_p_values_are_valid_and_reject_squares() -> None:
    """At most a fraction p of genuine images has a p-value up to p, apart from chance."""
    data = load("fashion_mnist", MORE)
    train, rest = data.train, data.test
    half = len(rest.labels) // 2
    val = rest._replace(images=rest.images[:half], labels=rest.labels[:half])
    p = shares_as_far(rest.images[half:], train, val)
    assert p.min() >= 1 / (half + 1) and p.max() <= 1
    for level in (0.1, 0.3, 0.6):
        # Three standard deviations of two samples of `half` images.
        assert np.mean(p <= level) <= level + 3 * np.sqrt(2 * level * (1 - level) / half)
    ink = np.zeros((2, 60, 60))
    ink[0, 5:50, 5:50] = 1
    ink[1, 5:50, 5:50] = np.random.default_rng(0).integers(0, 2, (45, 45))
    odd = np.stack([digit(picture) for picture in ink])[..., None]
    assert (shares_as_far(odd, train, val) <= UNLIKE).all()


def test_likeness_does_not_import_jax() -> None:
    import subprocess
    import sys

    code = (
        "import sys, cnnjax.deploy.likeness, cnnjax.deploy.digits, cnnjax.deploy.pictures; "
        "print('jax' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert out.stdout.strip() == "False"
