"""The report in a real Chromium: its network is JAX's, it answers strokes and keys, and it looks right."""

import json
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from browser import Browser
from helpers import MORE, succeeds, train
from PIL import Image
from reports import LONG, made_run, make_demonstration, make_experiment, make_pooling, own_test, tiny_test

from cnnjax.deploy.predict import probabilities, trained
from cnnjax.models import MODELS, ConvNet
from cnnjax.report.html.page import page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.installed() is None, reason="no Chromium is installed"),
]

ONE = [(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)]
ANGLES = np.linspace(0, 2 * np.pi, 40)
ZERO = [(0.5 + 0.2 * float(np.sin(a)), 0.5 - 0.3 * float(np.cos(a))) for a in ANGLES]
NETWORKS = {
    **MODELS,
    "average": ConvNet(pooling="average"),
    "median": MODELS["lenet-swish"].clone(pooling="median"),
    "strided": MODELS["lenet-swish"].clone(pooling="strided"),
    "no pooling": ConvNet(pooling="none", features=(3,)),
    "raw pixels": MODELS["lenet-swish"].clone(pixel_scale=255.0, dropout="none"),
    "half precision": ConvNet(dtype="bfloat16"),
    "even kernels": ConvNet(kernel_size=4, features=(3, 5), dropout_sites="blocks"),
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "run"
    succeeds(*train(out, "--epochs", "8", "--batch-size", "16", "--data-dir", str(MORE)))
    succeeds("report", str(out))
    return out


@pytest.fixture
def shown(chromium: Browser, run: Path) -> Iterator[Browser]:
    """The report at a desktop's width; a test may cause no console error."""
    chromium.screen(1200)
    chromium.open(run / "report.html")
    yield chromium
    chromium.settle()
    assert chromium.errors == []


def places(page: Browser, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Convert points of the unit square to screen coordinates of the pad, after scrolling to it."""
    page.run("pad.scrollIntoView({block: 'center', behavior: 'instant'})")
    page.settle()
    x, y, size = page.run("(r => [r.x, r.y, r.width])(pad.getBoundingClientRect())")
    return [(x + a * size, y + b * size) for a, b in points]


def answer(page: Browser) -> tuple[str, float]:
    """Return the predicted class on the page and its probability."""
    page.settle()
    best = page.run("[...document.querySelectorAll('.bars .best')].map(row => row.innerText.split(/\\s+/))")
    ((name, share),) = best
    assert page.run("document.querySelector('#verdict strong').textContent") == name
    return name, float(share.removesuffix("%")) / 100


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_logits_are_those_of_jax(chromium: Browser, tmp_path: Path, name: str) -> None:
    run = made_run(NETWORKS[name])
    (tmp_path / "page.html").write_text(page([run]))
    chromium.open(tmp_path / "page.html")
    images = (tiny_test().images[::20] / np.float32(255)).reshape(10, -1)
    script = (
        f"{json.dumps(images.tolist())}.map(image => [...logits(state.network, Float32Array.from(image))])"
    )
    np.testing.assert_allclose(chromium.run(script), run.tested.logits[::20], atol=1e-4, rtol=1e-5)
    difference = chromium.run("$('check').textContent").split("differ by at most ")[1]
    assert float(difference.removesuffix(".")) <= 1e-4 * max(1, np.abs(run.tested.logits).max())
    assert chromium.run("$('dropout').hidden") == (run.model.dropout == "none")
    assert chromium.errors == []


def test_the_trained_network_gives_the_probabilities_that_predict_gives(shown: Browser, run: Path) -> None:
    images = (tiny_test().images / np.float32(255)).reshape(200, -1)
    one = "softmax(logits(state.network, Float32Array.from(image)))"
    script = f"{json.dumps(images.tolist())}.map(image => {one})"
    expected = probabilities(trained(run, announce=lambda _: None), tiny_test())
    np.testing.assert_allclose(shown.run(script), expected, atol=1e-4)


def test_strokes_change_the_answer(shown: Browser) -> None:
    assert "appears here" in shown.run("$('verdict').textContent")
    shown.drag(places(shown, ONE))
    assert answer(shown)[0] == shown.run("state.network.classes[1]")
    shown.run("$('clear').click()")
    shown.settle()
    assert "appears here" in shown.run("$('verdict').textContent")
    shown.drag(places(shown, ZERO))
    assert answer(shown)[0] == shown.run("state.network.classes[0]")
    assert shown.run("$('example-drawing').checked")
    before = shown.run("digitise(state.strokes).reduce((a, b) => a + b)")
    shown.drag(places(shown, [(0.3, 0.3), (0.7, 0.7)]))
    shown.settle()
    shown.run("$('undo').click()")
    shown.settle()
    assert shown.run("digitise(state.strokes).reduce((a, b) => a + b)") == before
    shown.until("$('spoken').textContent.includes('%')")


def test_a_finger_draws_on_a_phone(shown: Browser) -> None:
    shown.screen(360, 700, touch=True)
    shown.swipe(places(shown, ZERO))
    assert answer(shown)[0] == shown.run("state.network.classes[0]")
    assert shown.run("state.strokes.length") == 1


def test_everything_can_be_done_with_the_keyboard(shown: Browser) -> None:
    shown.run("pad.focus()")
    shown.press("ArrowUp", 8)
    shown.press(" ")
    shown.settle()
    assert shown.run("$('pen').textContent") == "pen down"
    shown.press("ArrowDown", 16)
    shown.press(" ")
    assert answer(shown)[0] == shown.run("state.network.classes[1]")
    shown.press("ArrowRight", 3)
    (stroke,) = shown.run("state.strokes")
    expected = [[0.5, 0.5 + step / 28] for step in range(-8, 9)]
    np.testing.assert_allclose(stroke, expected, atol=1e-9)
    shown.press("Tab")
    assert shown.run("document.activeElement.id") == "undo"
    shown.press("Enter")
    shown.settle()
    assert shown.run("state.strokes.length") == 0
    shown.run("$('example-0').focus()")
    shown.press("ArrowRight", 3)
    assert shown.run("state.example") == 3
    shown.run("$('rate').focus()")
    kept = shown.run("$('mask-value').textContent")
    shown.press("ArrowRight", 4)
    shown.settle()
    assert shown.run("[state.rate, $('rate-value').textContent]") == [0.7, "0.70"]
    assert shown.run("$('mask-value').textContent") != kept
    assert "0.70" in shown.run("$('rate').getAttribute('aria-valuetext')")
    shown.until("$('under-masks').textContent.includes('of 100 masks')")


def test_the_order_of_the_tab_key_reaches_every_control(shown: Browser) -> None:
    reached = []
    for _ in range(40):
        shown.press("Tab")
        reached.append(shown.run("document.activeElement.id"))
    assert [name for name in ("pad", "example-0", "rate", "remask") if name not in reached] == []


def test_dropout_in_the_page_is_inverted_dropout(shown: Browser) -> None:
    site = "dropoutSite(state.network, chosenImage())"
    values = np.array(shown.run(f"[...{site}.values]"))
    u = np.array(shown.run(f"[...uniforms(state.seed, {len(values)})]"))
    assert ((u >= 0) & (u < 1)).all()
    before = np.ones(len(values), bool)
    for rate in (0.0, 0.25, 0.5, 0.9):
        dropped = shown.run(
            f"[...invertedDropout({site}.values, uniforms(state.seed, {len(values)}), {rate})]"
        )
        kept = u >= rate
        np.testing.assert_allclose(dropped, np.where(kept, values / (1 - rate), 0), rtol=1e-6)
        assert (before | ~kept).all(), "a value that was dropped stays dropped as the rate rises"
        before = kept
        # Each is kept with probability 1 - rate: five standard deviations around what that gives.
        assert abs(kept.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / len(values)) + 1e-12
        deviation = shown.run(f"deviationOfMean({site}.values, {rate})")
        expected = np.sqrt((values**2).sum() * rate / (1 - rate)) / len(values)
        assert deviation == pytest.approx(expected)
        assert abs(np.mean(dropped) - values.mean()) <= 5 * expected + 1e-9


@pytest.mark.parametrize("strokes", [[ONE], [ZERO], [ONE, [(0.2, 0.6), (0.7, 0.4)]], [[(0.4, 0.4)]]])
def test_a_drawing_is_normalised_as_in_mnist(shown: Browser, strokes: list[Any]) -> None:
    def digitised(scale: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        moved = [[(dx + scale * x, dy + scale * y) for x, y in stroke] for stroke in strokes]
        return np.array(shown.run(f"[...digitise({json.dumps(moved)})]")).reshape(28, 28)

    image = digitised()
    assert image.min() >= 0 and image.max() <= 1
    rows, columns = np.nonzero(image > 0.5)
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    dot = len(strokes[0]) == 1
    assert size < 6 if dot else 19 <= size <= 21  # 20, and wherever the edges fall between pixels
    middle = [(image * place).sum() / image.sum() for place in np.mgrid[:28, :28]]
    np.testing.assert_allclose(middle, 14, atol=0.02)
    if not dot:
        np.testing.assert_allclose(digitised(0.5, 0.1, 0.4), image, atol=1e-5)


def test_an_empty_pad_is_no_image(shown: Browser) -> None:
    assert shown.run("digitise([])") is None


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_screen_by_day_and_by_night(
    shown: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    shown.screen(width, dark=dark)
    shown.settle()
    assert shown.run("document.documentElement.scrollWidth") == width
    every = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .unseen, svg'))"
    assert shown.run(f"{every}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length") == 0
    shown.picture(tmp_path / "screen.png", whole=False)
    with Image.open(tmp_path / "screen.png") as picture:
        ground = np.asarray(picture.convert("L"))
    assert ground[0, 0] < 40 if dark else ground[0, 0] > 220
    assert ground.std() > 10


def test_what_is_seen_has_a_name(shown: Browser) -> None:
    named = {"img", "image", "button", "combobox", "radio", "slider", "application", "link", "radiogroup"}
    nodes = [(role, name) for role, name in shown.accessible() if role in named]
    assert [node for node in nodes if not node[1].strip()] == []
    assert {"application", "slider", "radio", "button", "link"} <= {role for role, _ in nodes}


def test_several_networks_share_the_pad(chromium: Browser, tmp_path: Path) -> None:
    runs = [made_run(MODELS["keras-cnn"], "first"), made_run(MODELS["lenet-swish"], "second")]
    (tmp_path / "page.html").write_text(page(runs))
    chromium.screen(1200)
    chromium.open(tmp_path / "page.html")
    chromium.drag(places(chromium, ONE))
    chromium.settle()
    first = chromium.run("$('bars').innerText")
    chromium.run("$('network').value = 1; $('network').dispatchEvent(new Event('change'))")
    chromium.settle()
    assert chromium.run("[state.network.name, state.strokes.length]") == ["second", 1]
    assert chromium.run("$('bars').innerText") != first
    assert chromium.run("document.querySelectorAll('.block').length") == 2
    assert chromium.errors == []


@pytest.mark.parametrize("width", [360, 1200])
def test_own_images_and_a_pad_share_a_page(chromium: Browser, tmp_path: Path, width: int) -> None:
    long = ("a_class_whose_name_is_long_and_cannot_be_broken_anywhere", *(f"kind {i}" for i in range(29)))
    small = ConvNet(features=(2,), hidden=(4,), classes=30)
    colour, grey = own_test(90, (12, 10, 3), 30), own_test(90, (28, 28, 1), 30)
    runs = [
        made_run(small, "colour", test=colour._replace(class_names=long), dataset="/data/colour.npz"),
        made_run(small, "grey", test=grey._replace(class_names=long), dataset="/data/grey.npz"),
    ]
    (tmp_path / "page.html").write_text(page(runs))
    chromium.screen(width)
    chromium.open(tmp_path / "page.html")
    chromium.drag(places(chromium, ONE))
    chromium.settle()
    assert chromium.run("[state.network.name, $('bars').children.length]") == ["grey", 30]
    assert "%" in chromium.run("$('verdict').textContent")
    photo = "document.querySelector('img.photo')"
    assert chromium.run(f"[{photo}.naturalWidth, {photo}.naturalHeight]") == [10, 12]
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert chromium.errors == []


EXPERIMENTS: dict[str, Callable[[Path], object]] = {
    "dropout ablation": lambda out: make_experiment(
        out, ("no dropout", "dropout 0.25", "dropout 0.5"), seeds=7
    ),
    "own experiment": lambda out: make_experiment(out, (LONG, f"not {LONG}", "none"), seeds=7),
    "pooling ablation": make_pooling,
    "inverted dropout": make_demonstration,
}
OVERFLOWING = """[...document.querySelectorAll('body *')].filter(
  (e) => !e.closest('.scroll, .unseen, svg') && e.getBoundingClientRect().right > innerWidth + 1
).map((e) => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def pages(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of every subject."""
    out = tmp_path_factory.mktemp("pages")
    made = {name: out / name.replace(" ", "_") for name in EXPERIMENTS}
    for name, make in EXPERIMENTS.items():
        make(made[name])
        Image.new("RGB", (1600, 800), "white").save(made[name] / "cost.png")
        succeeds("report", str(made[name]), "--data-dir", str(MORE))
    several = out / "runs.html"
    both = [shutil.copytree(run, out / name) for name in ("first", LONG)]
    succeeds("report", *map(str, both), "--out", str(several))
    reports = {name: path / "report.html" for name, path in made.items()}
    return {"run": run / "report.html", "runs": several, **reports}


@pytest.mark.parametrize("width", [390, 720, 1200])
@pytest.mark.parametrize("name", ["run", "runs", *EXPERIMENTS])
def test_every_subject_fits_the_screen(
    chromium: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    chromium.screen(width)
    chromium.open(pages[name])
    chromium.settle()
    assert chromium.run(OVERFLOWING) == []
    assert chromium.run("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.errors == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["run", "runs", *EXPERIMENTS])
def test_axe_finds_nothing(chromium: Browser, pages: dict[str, Path], name: str, dark: bool) -> None:
    """Contrast, names, roles, order of headings and the like, by axe-core's rules."""
    chromium.screen(1200, dark=dark)
    chromium.open(pages[name])
    chromium.run((resources.files("axe_core_python") / "axe.min.js").read_text())
    found = "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))"
    assert chromium.run(found) == []


@pytest.mark.parametrize(("name", "image"), [("run", ".strip a"), ("pooling ablation", ".figures a")])
def test_images_open_large_and_close(
    chromium: Browser, pages: dict[str, Path], name: str, image: str
) -> None:
    chromium.screen(390)
    chromium.open(pages[name])
    width = f"document.querySelector('{image} img').getBoundingClientRect().width"
    before = chromium.run(width)
    chromium.run(f"document.querySelector('{image}').click()")
    chromium.settle()
    assert chromium.run(width) > 2 * before
    close = "[...document.querySelectorAll('.close')].filter((e) => e.checkVisibility())"
    assert chromium.run(f"{close}.length") == 1
    chromium.run(f"{close}[0].click()")
    chromium.settle()
    assert chromium.run(width) == before and chromium.run(f"{close}.length") == 0
    assert chromium.run("document.documentElement.scrollWidth") == 390


def test_points_of_charts_say_what_they_are(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.screen(1200)
    chromium.open(pages["dropout ablation"])
    said = chromium.run("[...document.querySelectorAll('circle.tip > title')].map((e) => e.textContent)")
    assert any(text.startswith("dropout 0.5 (n=7), epoch 3: 9") and text.endswith("%") for text in said)
    assert any(text.startswith("dropout 0.25: ") for text in said)
    point = "document.querySelector('circle.tip')"
    box = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({point}.getBoundingClientRect())"
    chromium.run(f"{point}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    assert chromium.run(f"document.elementFromPoint(...{box}) === {point}")


def test_paper_is_white_and_has_no_controls(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.screen(800, dark=True, media="print")
    chromium.open(pages["run"])
    shown = "[...document.querySelectorAll('nav, canvas, button, a.skip')].filter((e) => e.checkVisibility())"
    assert chromium.run(f"{shown}.length") == 0
    assert chromium.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run("document.querySelectorAll('table').length") > 0
