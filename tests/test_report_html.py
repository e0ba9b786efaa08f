"""`report` writes one self-contained page with the network inside, and escapes all text."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from helpers import TINY, contents, fails, rename, succeeds, train
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from reports import Page, made_run, make_demonstration, make_experiment, make_pooling, own_test

from cnnjax.data import NAMES, Dataset, idx, load
from cnnjax.deploy.predict import trained
from cnnjax.errors import UserError
from cnnjax.experiment.plans import Evidence, Stated, remarks
from cnnjax.models import MODELS, ConvNet
from cnnjax.plots import draw_bands, draw_differences, draw_history
from cnnjax.report.html import subjects
from cnnjax.report.html.charts import Chart, chart
from cnnjax.report.html.encoding import picture
from cnnjax.report.html.experiment_sections import curves
from cnnjax.report.html.network import exported, obstacle
from cnnjax.report.html.page import TEMPLATES, page
from cnnjax.report.html.run_sections import compared, confusions
from cnnjax.report.html.subjects import CLASSES
from cnnjax.report.html.words import DASH, digits_for, interval, measured, number, percent, size
from cnnjax.stats import compare, summarise
from cnnjax.stats.intervals import wilson_interval
from cnnjax.stats.plan import Plan

MACROS = '{% import "macros.html" as m %}'
HOSTILE = """<img src=x onerror=alert(1)>"'&</script><!--"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "a run"
    succeeds(*train(out, "--epochs", "2"))
    return out


@pytest.fixture(scope="module")
def whole(run: Path) -> Page:
    assert str(run / "report.html") in succeeds("report", str(run))
    return Page((run / "report.html").read_text())


def weights(record: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(record["weights"]), "<f4")


def assert_self_contained(whole: Page) -> None:
    """No address but the SVG namespace, and none in an attribute that fetches."""
    assert set(re.findall(r"https?://[^\s\"'<>)]*", whole.html)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in whole.html and "@import" not in whole.html
    for name, attributes in whole.elements:
        assert name not in ("iframe", "object", "base")
        for attribute in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(attribute) or "#"
            assert value.startswith(("#", "data:image/")), (name, value)


def test_the_page_is_whole_and_self_contained(whole: Page) -> None:
    assert_self_contained(whole)
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"] for attributes in whole.all("a")]
    assert links and {link.removeprefix("#") for link in links if link} <= set(ids)
    assert all(attributes.get("alt") for attributes in whole.all("img"))
    assert [attributes["lang"] for attributes in whole.all("html")] == ["en"]
    assert whole.texts["h1"] == ["keras-cnn on Fashion-MNIST"]
    labelled = {attributes["for"] for attributes in whole.all("label")}
    assert {"network", "rate"} <= labelled


def test_only_the_scripts_and_styles_that_were_written_may_run(whole: Page) -> None:
    (policy,) = (a["content"] for a in whole.all("meta") if a.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    code = [t for a, t in zip(whole.all("script"), whole.texts["script"], strict=True) if "type" not in a]
    for text in (*code, *whole.texts["style"]):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not any("style" in attributes for _, attributes in whole.elements)
    assert not any(name.startswith("on") for _, attributes in whole.elements for name in attributes)


def test_the_page_holds_the_weights_to_the_bit(run: Path, whole: Page) -> None:
    (record,) = whole.data()["networks"]
    params = trained(run, announce=lambda _: None).params
    layers = ("Conv_0", "Dense_0", "Dense_1")
    expected = np.concatenate(
        [np.ravel(params[name][part]) for name in layers for part in ("kernel", "bias")]
    )
    np.testing.assert_array_equal(weights(record), expected)
    kinds = [layer["kind"] for layer in record["layers"]]
    assert kinds == ["conv", "pool", "flatten", "dropout", "dense", "dense"]
    assert len(record["examples"]) == len(record["logits"]) == len(record["classes"]) == 10


def test_the_numbers_are_those_of_the_run(run: Path, whole: Page) -> None:
    result = json.loads((run / "result.json").read_text())
    accuracy = result["test"]["accuracy"]
    assert percent(accuracy) in whole.text()
    low, high = wilson_interval(round(50 * accuracy), 50)
    assert f"{interval(100 * low, 100 * high, 2)}%" in whole.text()
    history = (run / "history.csv").read_text().splitlines()
    assert number(float(history[-1].split(",")[3])) in whole.text()
    assert result["versions"]["jax"] in whole.text()
    wrong = 50 - round(50 * accuracy)
    assert f"{wrong} test images of 50\nare misclassified" in whole.text()


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are text there")
def test_a_directory_whose_name_is_no_text_has_a_page(run: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(run, tmp_path / os.fsdecode(b"x\xff"))
    succeeds("report", str(odd))
    assert "x?" in (odd / "report.html").read_text()


@pytest.mark.slow
def test_several_subjects_share_a_page(run: Path, tmp_path: Path) -> None:
    again, ablation = tmp_path / "again", tmp_path / "ablation"
    shutil.copytree(run, again)
    make_experiment(ablation, ("rate 0", "rate 0.5"))
    out = tmp_path / "both.html"
    succeeds("report", str(run), str(again), str(ablation), "--out", str(out))
    both = Page(out.read_text())
    assert len(both.data()["networks"]) == 2
    ids = [attributes["id"] for _, attributes in both.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert "Side by side" in both.texts["h2"]
    assert_self_contained(both)


def test_an_experiment_has_its_table_and_no_script(tmp_path: Path) -> None:
    final = make_experiment(tmp_path / "my_ablation", ("rate 0", "rate 0.5"), seeds=7)
    succeeds("report", str(tmp_path / "my_ablation"))
    read = Page((tmp_path / "my_ablation/report.html").read_text())
    assert "script" not in read.texts
    text = read.text()
    assert {"my ablation"} == set(read.texts["h1"]) and "a conclusion" in text
    means = 100 * final.mean(axis=1)
    assert all(f"{mean:.2f} ± " in text for mean in means)
    assert number(means[1] - means[0], 2, sign=True) in text
    assert_self_contained(read)


def test_an_unfinished_experiment_shows_its_finished_seeds(tmp_path: Path) -> None:
    final = make_experiment(tmp_path / "half", ("a", "b"), seeds=3, finished=False)
    succeeds("report", str(tmp_path / "half"))
    text = Page((tmp_path / "half/report.html").read_text()).text()
    assert "Not finished" in text
    assert f"{100 * final[0, :2].mean():.2f} ± " in text
    assert "a (n=2)" in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    directory = tmp_path / HOSTILE.replace("/", "_")
    make_experiment(directory, (HOSTILE, "b"))
    summary = json.loads((directory / "summary.json").read_text())
    summary |= {"conclusion": HOSTILE, "answers": {HOSTILE: HOSTILE}}
    (directory / "summary.json").write_text(json.dumps(summary))
    succeeds("report", str(directory), "--out", str(tmp_path / "out.html"))
    read = Page((tmp_path / "out.html").read_text())
    assert "img" not in read.texts and not read.all("img")
    assert "script" not in read.texts
    assert HOSTILE in read.text() and directory.name.replace("_", " ") in read.texts["h1"][0]
    made = Page(page([made_run(ConvNet(), HOSTILE)]))
    assert made.data()["networks"][0]["name"] == HOSTILE
    assert not any("onerror" in attributes for _, attributes in made.elements)


@example(HOSTILE, HOSTILE)
@given(st.text(), st.text())
def test_templates_escape_text_and_data(text: str, value: str) -> None:
    source = MACROS + '{{ m.table([a, b], [[a, b]], b) }}<p title="{{ b }}">{{ a }}</p>'
    read = Page(TEMPLATES.from_string(source).render(a=text, b=value))
    assert {name for name, _ in read.elements} - {"caption"} == set(
        ["table", "thead", "tr", "th", "tbody", "td", "p"]
    )
    assert read.texts["th"] == [text, value, text] and read.texts["td"] == [value]
    assert read.texts["p"] == [text] and read.all("p") == [{"title": value}]
    assert read.texts.get("caption", [""]) == [value]
    block = TEMPLATES.from_string("{{ data | tojson }}").render(data={"text": text, "value": value})
    assert "<" not in block and json.loads(block) == {"text": text, "value": value}


FLOATS = st.floats(-1e6, 1e6) | st.just(float("nan")) | st.just(float("inf"))


def assert_inside(drawn: Chart) -> None:
    """Every point is finite and within the frame, and every colour follows the style sheet."""
    for x, y, _ in drawn.tips:
        assert 0 <= x <= drawn.size[0] and 0 <= y <= drawn.size[1]
    for tag, attributes, _ in drawn.shapes:
        assert "#" not in " ".join(attributes.values())
        if tag == "path":
            moved = re.findall(r"-?[\d.]+", attributes.get("transform", "translate(0 0)"))
            assert not re.search("nan|inf", attributes["d"])
            for point in re.findall(r"(-?[\d.]+) (-?[\d.]+)", attributes["d"]):
                for value, shift, size in zip(point, moved, drawn.size, strict=True):
                    assert -1 <= float(value) + float(shift) <= size + 1


@settings(deadline=None, max_examples=10)
@given(st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=8), st.booleans())
def test_a_chart_is_finite_and_inside_its_frame(values: list[list[float]], bounded: bool) -> None:
    x, table = np.arange(1, len(values) + 1), np.array(values).T
    limits = (0.0, 1.0) if bounded else (-np.inf, np.inf)
    bands = chart("b", lambda axis: draw_bands(axis, x, table[None], [HOSTILE], limits=limits))
    rows = [dict(zip(("loss", "accuracy", "val_loss"), row, strict=True)) for row in values]
    rows = [{**row, "epoch": i + 1.0, "val_accuracy": row["accuracy"]} for i, row in enumerate(rows)]
    history = chart("h", lambda axis: draw_history(axis, "accuracy", rows, rows))
    for drawn in (bands, history):
        assert_inside(drawn)
        source = MACROS + "{{ m.charts([drawn, drawn]) }}"
        page = Page(TEMPLATES.from_string(source).render(drawn=drawn))
        assert page.texts["figcaption"] == [drawn.title] * 2
        assert [a["aria-label"] for a in page.all("svg") if "role" in a] == [drawn.description] * 2
    assert bands.legend[0][0].startswith(HOSTILE) and len(history.legend) == 4


def test_differences_that_are_not_defined_are_left_out() -> None:
    nan = float("nan")
    middle, low, high = np.array([[1.0, nan, 2.0], [nan, nan, 1.5], [nan, nan, 3.0]])
    none = np.full(3, np.inf)
    drawn = chart("d", lambda axis: draw_differences(axis, "abc", middle, (low, high), (-none, none)))
    assert_inside(drawn)
    blue = [attributes for _, attributes, _ in drawn.shapes if attributes.get("stroke") == "var(--c0)"]
    assert sum("transform" in attributes for attributes in blue) == 2  # the points
    assert len(blue) == 3  # and the one interval
    assert [text for tag, _, text in drawn.shapes if tag == "text"][-3:] == ["a", "b", "c"]


def test_numbers_have_the_digits_that_matter() -> None:
    assert number(-0.12345, 3) == "\N{MINUS SIGN}0.123" and number(None) == number(float("nan"))
    assert digits_for([0.0034]) == 4 and digits_for([]) == 2 and digits_for([25.0, 0.001]) == 2


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_wilson_interval_solves_its_equation(right: int, wrong: int) -> None:
    n = right + wrong
    low, high = wilson_interval(right, n)
    if n == 0:
        assert np.isnan(low) and np.isnan(high)
        return
    share = right / n
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    for bound in (low, high):
        # |share - p| = z sqrt(p (1 - p) / n), by definition; at 0 and 1 both sides vanish.
        assert abs(share - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / n), abs=1e-6)


def test_networks_that_the_page_cannot_compute_are_refused() -> None:
    for model in (ConvNet(activation=nn.gelu), ConvNet(dropout="classic")):
        run = made_run(model)
        with pytest.raises(UserError, match="relu or swish"):
            exported(model, run.params)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_by_name_is_exported(name: str) -> None:
    record = exported(MODELS[name], made_run(MODELS[name]).params)
    sizes = [
        np.prod(layer["kernel"]) + layer["kernel"][-1] for layer in record["layers"] if "kernel" in layer
    ]
    assert len(weights(record)) == sum(sizes)


def test_mistakes_are_one_line_and_leave_nothing(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "neither a run nor an experiment" in fails(2, "report", str(empty))
    assert "neither a run nor an experiment" in fails(2, "report", str(tmp_path / "none"))
    fails(2, "report")
    assert "is a directory" in fails(1, "report", str(run), "--out", str(empty))
    assert "cannot write" in fails(1, "report", str(run), "--out", str(run / "config.json" / "x.html"))
    assert list(tmp_path.iterdir()) == [empty] and not list(empty.iterdir())


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("result.json", "{", "damaged"),
        ("result.json", '{"epochs": 2, "sha256": ""}', "has changed since it was written"),
    ],
)
def test_a_damaged_run_is_one_line(
    run: Path, tmp_path: Path, file: str, content: str | None, word: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report.html"))
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_text(content)
    before = contents(copy)
    assert word in fails(1, "report", str(copy))
    assert contents(copy) == before


def test_the_data_must_be_those_of_the_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    for file, path in idx.find(TINY).items():
        (tmp_path / "idx" / file).write_bytes(idx.read(path)[:-1] + b"\x01")
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("report.html"))
    assert "--data-dir" in fails(2, "report", str(copy), "--data-dir", str(tmp_path / "idx"))
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("results.csv", "arm,seed,epoch,val_loss\na,zero,1,2\n"),
        ("results.csv", b"\xff\xfe\x00arm"),
        ("summary.json", '{"x": {"arms": [{"name": 1}], "contrasts": []}}'),
        ("summary.json", '{"x": {"arms": [], "contrasts": [{"arm": "a", "difference": "b"}]}}'),
        ("summary.json", "[1]"),
        ("protocol.json", "{"),
    ],
)
def test_a_damaged_experiment_is_one_line(tmp_path: Path, file: str, content: str | bytes) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    (tmp_path / "x" / file).write_bytes(content.encode() if isinstance(content, str) else content)
    before = contents(tmp_path)
    assert file in fails(1, "report", str(tmp_path / "x"))
    assert contents(tmp_path) == before


def test_a_table_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    (tmp_path / "x" / "results.csv").unlink()
    os.mkfifo(tmp_path / "x" / "results.csv")
    assert "results.csv is not a file of at most" in fails(1, "report", str(tmp_path / "x"))


def test_a_picture_linked_from_elsewhere_is_not_shown(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    (tmp_path / "x" / "own.png").write_bytes(b"own picture")
    (tmp_path / "secret.png").write_bytes(b"private picture")
    (tmp_path / "x" / "linked.png").symlink_to(tmp_path / "secret.png")
    read: Any = subjects.read(tmp_path / "x", None, pytest.fail)
    pictures = read.figures
    assert pictures["own.png"] == b"own picture" and "linked.png" not in pictures


def test_the_history_is_that_of_the_checkpoints(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "history.csv").write_text("epoch,loss,accuracy,val_loss,val_accuracy,seconds\n1,2,0,2,0,1\n")
    read: Any = subjects.read(copy, TINY, lambda _: None)
    assert read.history == trained(run, lambda _: None).history and len(read.history) == 2


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    (tmp_path / "x/predictions").mkdir()
    few = {"labels": np.zeros(7, np.uint8), "probability": np.ones(7, np.float32)}
    np.savez_compressed(tmp_path / "x/predictions/a, seed 0.npz", **few)
    assert "--data-dir" in fails(2, "report", str(tmp_path / "x"), "--data-dir", str(TINY))
    stored = {"labels": np.zeros(50, np.uint8), "probability": np.ones(50, np.float32)}
    np.savez_compressed(tmp_path / "x/predictions/a, seed 0.npz", **stored)
    succeeds("report", str(tmp_path / "x"), "--data-dir", str(TINY))
    read = Page((tmp_path / "x/report.html").read_text())
    assert len(read.all("img")) > 5 and "What the networks get wrong" in read.texts["h2"]


def test_class_names_are_arrays_to_the_page() -> None:
    """Its scripts map over them, which a string does not have."""
    assert CLASSES.keys() == set(NAMES)
    assert all(isinstance(names, tuple) and len(names) == 10 for names in CLASSES.values())


def test_runs_that_differ_only_in_the_seed_have_a_mean() -> None:
    runs = [made_run(ConvNet(features=(2,), hidden=(4,)), f"seed {seed}", seed) for seed in (0, 1, 2)]
    runs = [run._replace(config=replace(run.config, seed=seed)) for seed, run in enumerate(runs)]
    ((_, seeds, spread, _),) = compared(runs)["seeds"]
    values = 100 * np.array([run.tested.accuracy for run in runs])
    assert seeds == 3 and spread == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}%"
    other = runs[1]._replace(config=replace(runs[1].config, dropout_rate=0.9))
    assert compared([runs[0], other])["seeds"] == [], "another rate is another configuration"


def test_only_mnist_asks_for_3_and_5() -> None:
    run = made_run(ConvNet(features=(2,), hidden=(4,)))
    sentences = {
        name: confusions(run._replace(config=replace(run.config, dataset=name)))["sentence"] for name in NAMES
    }
    assert "3 and 5" in sentences.pop("mnist") and set(sentences.values()) == {""}


# Data and networks of one's own

SMALL = ConvNet(features=(2,), hidden=(4,))
SCRIPTED = {"draw", "inside", "dropout"}
"""Sections that need a network which the page can compute."""


class Plain(nn.Module):
    """No convolution, no dropout."""

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes)(x.reshape(len(x), -1))


class Derived(ConvNet):
    """A ConvNet may compute something else in a class of its own."""


def own_pooling(x: jax.Array, window: int) -> jax.Array:
    return nn.max_pool(x, (window, window), (window, window))


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "shades.npz"
    (x, y, _), (x_test, y_test, _) = own_test(70), own_test(35)
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture(scope="module")
def own(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "own"
    small = ["--model", f"{__name__}:SMALL", "--dropout-rate", "0.25", "--batch-size", "8"]
    succeeds("train", "--dataset", str(shades), *small, "--epochs", "1", "--out", str(out))
    return out


def sections(read: Page) -> set[str]:
    return {str(attributes["id"]) for attributes in read.all("section") if "id" in attributes}


def assert_images_of(read: Page, test: Dataset) -> None:
    """The page has images, and every one is the test image that its text names, in its colours."""
    shown = [attributes for attributes in read.all("img") if attributes.get("class") == "photo"]
    assert shown
    for attributes in shown:
        number = re.match(r"test image (\d+):", str(attributes["alt"]))
        content = base64.b64decode(str(attributes["src"]).split(",")[1])
        assert number is not None
        np.testing.assert_array_equal(Image.open(io.BytesIO(content)), test.images[int(number[1])])


@pytest.mark.slow
def test_a_run_on_own_data_has_its_images_and_classes(own: Path, shades: Path, tmp_path: Path) -> None:
    out = tmp_path / "missing/directories/own.html"
    succeeds("report", str(own), "--out", str(out))
    read = Page(out.read_text())
    assert_self_contained(read)
    assert_images_of(read, load(str(shades)).test)
    assert read.texts["h1"] == [f"{__name__}:SMALL on shades.npz"]
    assert sections(read) == {"training", "mistakes", "record"} and "script" not in read.texts
    text = read.text()
    assert f"({size((12, 10, 3))}, 7 classes), with dropout rate 0.25." in text
    assert f"its images are {size((12, 10, 3))}" in text and "digit" not in text.lower()
    accuracy = json.loads((own / "result.json").read_text())["test"]["accuracy"]
    assert percent(accuracy) in text
    heads = [attributes for attributes in read.all("td") if "data-heat" in attributes]
    assert len(heads) == 7 * 7


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 70))
def test_a_picture_is_the_image_or_its_first_channel(channels: int, height: int, width: int) -> None:
    (image,) = own_test(1, (height, width, channels), 2).images
    style, uri = picture(image)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    if channels == 1:
        assert style == "ink"
        np.testing.assert_array_equal(shown[..., 1:], image)
    else:
        assert style == ("photo large" if width > 64 else "photo")
        np.testing.assert_array_equal(shown, image if channels == 3 else image[..., 0])


@pytest.mark.slow
def test_it_is_said_that_only_one_of_many_channels_is_shown() -> None:
    for channels, said in ((1, False), (2, True), (3, False), (4, True)):
        run = made_run(SMALL.clone(classes=7), test=own_test(shape=(8, 9, channels)), dataset="/own.npz")
        assert (f"Of the {channels} channels of an image, the first is shown." in page([run])) == said


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Plain(), "they show a ConvNet, and nets:Net is another network"),
        (Derived(features=(2,), hidden=(4,)), "they show a ConvNet"),
        (SMALL.clone(activation=nn.gelu), "this one has gelu, max, inverted"),
        (SMALL.clone(pooling=own_pooling), "this one has relu, own_pooling, inverted"),
        (SMALL.clone(dropout="classic"), "this one has relu, max, classic"),
        (ConvNet(features=(), hidden=(4,)), "this one has no convolution"),
    ],
)
def test_what_the_page_cannot_compute_is_left_out_with_the_reason(model: nn.Module, why: str) -> None:
    run = made_run(model, model="nets:Net")
    assert why in obstacle(run)
    read = Page(page([run]))
    assert not sections(read) & SCRIPTED and "script" not in read.texts and not read.all("canvas")
    assert why in read.text() and "“Inside the network” and “Dropout by hand” are left out" in read.text()


def test_a_network_without_a_dropout_rate_has_none_in_the_page() -> None:
    plain = made_run(Plain(), "plain", model="nets:Net", dropout_rate=0.0, custom={"model": "Net"})
    alone = page([plain])
    assert "dropout rate" not in alone.split("Settings and provenance")[1].split("<h2>")[0]
    assert "without dropout" not in alone and "run plain, seed 0" in alone and "dropout on" not in alone
    rows = compared([plain, made_run(SMALL, "small")])["rows"]
    assert [row[2] for row in rows] == [DASH, "0.5"]


def test_own_runs_and_playable_ones_share_a_page(run: Path, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "both.html"
    succeeds("report", str(own), str(run), "--data-dir", str(TINY), "--out", str(out))
    both = Page(out.read_text())
    assert_self_contained(both)
    assert [network["name"] for network in both.data()["networks"]] == [run.name]
    assert [text.strip() for text in both.texts["option"]] == [run.name]
    assert sections(both) > SCRIPTED and "Draw a garment" in both.texts["h2"]
    assert both.text().count("are left out for this run") == 1


def test_grey_images_of_28_x_28_pixels_can_be_drawn_whatever_they_show() -> None:
    test = own_test(90, (28, 28, 1), 30)
    made = made_run(SMALL.clone(classes=30), test=test, dataset="/data/letters.npz")
    read = Page(page([made]))
    assert sections(read) > SCRIPTED and "Draw something" in read.texts["h2"]
    (record,) = read.data()["networks"]
    assert record["dataset"] == "letters.npz" and tuple(record["classes"]) == test.class_names
    assert len(record["examples"]) == len(record["logits"]) == 20
    assert not any("digit" in text.lower() for tag in ("p", "h2", "li") for text in read.texts[tag])


def test_many_classes_have_a_table_of_the_most_confused_pairs() -> None:
    test = own_test(200, (8, 8, 3), 30)
    made = made_run(SMALL.clone(classes=30), test=test, dataset="/data/many.npz")
    most, guessed = confusions(made)["most"], made.tested.logits.argmax(axis=1)
    assert 0 < len(most) <= 20 and [row[1] for row in most] == sorted((row[1] for row in most), reverse=True)
    for names, both, *each in most:
        a, b = (test.class_names.index(name) for name in str(names).split(" and "))
        pairs = [(a, b), (b, a)]
        assert each == [int(np.sum((test.labels == t) & (guessed == p))) for t, p in pairs]
        assert both == sum(each)
    read = Page(page([made]))
    assert not [attributes for attributes in read.all("td") if "data-heat" in attributes]
    assert "The most confused pairs of the 30 classes, in test images" in read.texts["caption"]
    few = made_run(SMALL.clone(classes=20), test=own_test(classes=20), dataset="/data/few.npz")
    assert len(confusions(few)["matrix"]) == 20


def test_a_run_that_stopped_early_shows_all_epochs_and_says_which_one_it_is_of(tmp_path: Path) -> None:
    out = tmp_path / "early"
    model = ["--model", f"{__name__}:Plain", "--learning-rate", "0.5", "--stop-early", "1"]
    succeeds(*train(out, *model, "--epochs", "12"))
    result = json.loads((out / "result.json").read_text())
    assert result["stopped_early"] and result["epoch"] < result["epochs"] < 12
    succeeds("report", str(out))
    read = Page((out / "report.html").read_text())
    epoch, rows = result["epoch"], (out / "history.csv").read_text().splitlines()[1:]
    assert f"trained for {len(rows)} epochs of 12" in read.text()
    assert f"Early stopping kept the network of epoch {epoch}." in read.text()
    assert f"After epoch {epoch}" in read.texts["caption"]
    cells = zip(read.all("td"), read.texts["td"], strict=True)
    shown = [text for attributes, text in cells if attributes.get("data-head") == "validation loss, nats"]
    assert shown == [number(float(row.split(",")[3])) for row in rows]
    assert percent(result["validation"]["accuracy"]) in read.texts["td"]
    assert percent(result["test"]["accuracy"]) in read.texts["td"]


def test_a_run_that_only_python_can_load_is_one_line(run: Path, tmp_path: Path) -> None:
    changes = {"memory": {"dataset": "memory:arrays"}, "objects": {"custom": {"loss": "mine"}}}
    for name, change in changes.items():
        copy = shutil.copytree(run, tmp_path / name, ignore=shutil.ignore_patterns("report.html"))
        rename(copy, **change)
    assert "np.savez" in fails(2, "report", str(tmp_path / "memory"))
    assert "trained from Python with objects of its own" in fails(1, "report", str(tmp_path / "objects"))


@pytest.fixture
def experiment(shades: Path, tmp_path: Path) -> Path:
    """An experiment on own data, whose first arm takes all images for the next class."""
    out, loaded = tmp_path / "x", load(str(shades))
    make_experiment(out, ("a", "b"), seeds=1)
    (out / "protocol.json").write_text(json.dumps({"dataset": str(shades), "data": loaded.sha256}))
    (out / "predictions").mkdir()
    labels = ((loaded.test.labels + 1) % 7).astype(np.uint8)
    stored = {"labels": labels, "probability": np.ones(len(labels), np.float32)}
    np.savez_compressed(out / "predictions/a, seed 0.npz", **stored)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(out / "confused.png")
    return out


def test_an_experiment_on_own_data_has_its_images(experiment: Path, shades: Path, run: Path) -> None:
    succeeds("report", str(experiment))
    read = Page((experiment / "report.html").read_text())
    test = load(str(shades)).test
    assert_images_of(read, test)
    assert "0 and 1" in read.text() and "confused.png" not in read.text() and "memory" not in read.text()
    succeeds("report", str(experiment), str(run), "--data-dir", str(TINY))
    assert_images_of(Page((experiment / "report.html").read_text()), test)


def test_a_report_on_an_experiment_does_without_data_that_are_not_here(
    experiment: Path, tmp_path: Path
) -> None:
    protocol = json.loads((experiment / "protocol.json").read_text())
    away = str(tmp_path / "stick" / "shades")
    (experiment / "protocol.json").write_text(json.dumps(protocol | {"dataset": away}))
    assert "leaves out the images" in succeeds("report", str(experiment))
    assert "was not found when this page was made" in (experiment / "report.html").read_text()


def test_other_data_than_those_of_an_experiment_are_refused(experiment: Path) -> None:
    protocol = json.loads((experiment / "protocol.json").read_text())
    for data in ({"train_images": "0"}, None):
        other = protocol | {"data": data}
        (experiment / "protocol.json").write_text(json.dumps(other))
        few = {"labels": np.zeros(3, np.uint8), "probability": np.ones(3, np.float32)}
        np.savez_compressed(experiment / "predictions/a, seed 0.npz", **few)
        assert "restore" in fails(2, "report", str(experiment))


@pytest.mark.parametrize("name", ["arrays", "memory:arrays", "shades.npz"])
def test_an_experiment_on_arrays_in_memory_has_no_images_and_says_so(
    experiment: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has the name by chance, but other content, is not taken for them."""
    monkeypatch.chdir(experiment)
    np.savez("shades.npz", x_train=np.zeros((12, 2, 2), np.uint8), y_train=np.arange(12) % 2)
    protocol = json.loads((experiment / "protocol.json").read_text()) | {"dataset": name}
    (experiment / "protocol.json").write_text(json.dumps(protocol))
    succeeds("report", str(experiment))
    read = Page((experiment / "report.html").read_text())
    name = name.removeprefix("memory:")
    assert f"The data set “{name}” was in memory, so its images are not in this page" in read.text()
    assert len(read.all("img")) == 1 and "confused.png" in read.texts["figcaption"]


# What a page shows of the results


def headings(read: Page) -> list[str]:
    return [f"#{attributes['id']}" for attributes in read.all("section") if "id" in attributes]


@pytest.mark.slow
def test_sections_are_in_the_order_of_the_navigation_and_none_is_empty(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "again")
    for make, name in ((make_pooling, "pooling"), (make_demonstration, "demonstration")):
        make(tmp_path / name)
    several = [str(tmp_path / name) for name in ("again", "pooling", "demonstration")]
    for subjects_of in ([str(run)], [str(run), *several], several[1:2], several[2:]):
        succeeds("report", *subjects_of, "--data-dir", str(TINY), "--out", str(tmp_path / "page.html"))
        html = (tmp_path / "page.html").read_text()
        read = Page(html)
        links = [a["href"] for a in read.all("a") if a["href"] in headings(read) and "class" not in a]
        assert links == headings(read) and len(links) > 1
        parts = re.findall(r"<section id=.*?(?=<section id=|</main>)", html, re.S)
        assert all(re.search("<(table|dl|p|figure|canvas)", part) for part in parts)


def test_every_table_of_results_names_its_metric_and_unit(tmp_path: Path) -> None:
    make_demonstration(tmp_path / "x")
    succeeds("report", str(tmp_path / "x"))
    captions = Page((tmp_path / "x/report.html").read_text()).texts["caption"]
    assert captions == [
        "Activation, inverted · Mean activation; differences are to “inverted in training”",
        "Averaging · Test error, %; differences are to “Adam: inverted”, in points",
        "Forgotten scaling · Test loss, nats; differences are to “classic”",
    ]
    assert measured("val_loss", nats=False) == "Validation loss"


def test_contrasts_that_are_no_arm_minus_the_first_have_rows_and_the_answer_leads(tmp_path: Path) -> None:
    """So are those of batchnorm_or_dropout.py and dropout_paper.py."""
    accuracy = np.random.default_rng(0).uniform(0.9, 1.0, (4, 10))
    gain = compare([accuracy[3] - accuracy[2]], ["with norm"], ["no dropout"])[0]
    arms = summarise(accuracy, ["plain", "dropout", "norm", "both"]).as_dict()["arms"]
    of = {"metric": "validation accuracy", "contrasts": {gain.arm: gain.as_dict()}, "answer": "It helps."}
    (tmp_path / "x").mkdir()
    (tmp_path / "x/summary.json").write_text(json.dumps({"mnist": of | {"arms": arms}, "kmnist": of}))
    succeeds("report", str(tmp_path / "x"))
    read = Page((tmp_path / "x/report.html").read_text())
    assert [text for text in read.texts["p"] if "helps" in text] == ["mnist: It helps.", "kmnist: It helps."]
    captions = [
        f"{name} · Validation accuracy, %; differences are to “no dropout”" for name in ("Mnist", "Kmnist")
    ]
    assert read.texts["caption"] == [f"{caption}, in points" for caption in captions]
    described = interval(100 * gain.low, 100 * gain.high, 2, sign=True)
    cell = f"{number(100 * gain.difference, 2, sign=True)} [{described}]"
    assert read.texts["td"].count(cell) == 2 and "reference" not in read.texts["td"]
    rows = [text for text in read.texts["th"] if text in ("plain", "dropout", "norm", "both", "with norm")]
    assert rows == ["plain", "dropout", "norm", "both", "with norm", "with norm"]


@pytest.mark.parametrize(
    ("before", "rows", "said"),
    [
        (None, 0, "Stated before the first epoch: It helps."),
        (None, 12, "Hypothesis: It helps."),  # plan.json was deleted
        (Plan(hypothesis="It harms."), 16, "Hypothesis: It helps."),  # --replan
    ],
)
def test_a_hypothesis_is_called_stated_before_only_if_it_was(
    tmp_path: Path, before: Plan | None, rows: int, said: str
) -> None:
    plan = Plan(hypothesis="It helps.")
    stated = [Stated(each, "now", 0) for each in (before,) if each] + [Stated(plan, "now", rows)]
    evidence = Evidence(plan, 0.05, (6,), remarks(stated, plan, (6,), 6))
    make_experiment(tmp_path / "x", ("a", "b"))
    path = tmp_path / "x/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | evidence.as_dict()))
    succeeds("report", str(tmp_path / "x"))
    notes = Page((tmp_path / "x/report.html").read_text()).texts["p"]
    assert [note for note in notes if "It helps." in note] == [said]


def test_the_interval_of_a_primary_contrast_is_not_called_joint(tmp_path: Path) -> None:
    accuracy = make_experiment(tmp_path / "x", ("a", "b", "c", "d"))
    summary = summarise(accuracy, "abcd", primary="c").as_dict()
    (tmp_path / "x/summary.json").write_text(json.dumps({"val_accuracy": summary}))
    succeeds("report", str(tmp_path / "x"))
    heads = Page((tmp_path / "x/report.html").read_text()).texts["th"]
    assert "difference [95% t, jointly except c]" in heads


def test_the_interval_over_seeds_and_images_has_a_table(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    summary = json.loads((tmp_path / "x/summary.json").read_text())
    found = {"difference": 0.0123, "low": -0.001, "high": 0.0256, "seeds": 0.004, "images": 0.0031}
    (tmp_path / "x/summary.json").write_text(json.dumps(summary | {"crossed": {"b": found}}))
    succeeds("report", str(tmp_path / "x"))
    read = Page((tmp_path / "x/report.html").read_text())
    assert any("new seeds and new images" in caption for caption in read.texts["caption"])
    row = ["+1.23 [\N{MINUS SIGN}0.10 to +2.56]", "0.40", "0.31"]
    cells = read.texts["td"]
    assert any(cells[i : i + 3] == row for i in range(len(cells)))


@pytest.mark.slow
def test_runs_side_by_side_show_the_settings_that_differ() -> None:
    runs = [made_run(SMALL, f"run {size}") for size in (8, 32)]
    runs = [
        run._replace(config=replace(run.config, batch_size=n)) for run, n in zip(runs, (8, 32), strict=True)
    ]
    shown = compared(runs)
    assert shown["heads"][:2] == ["run", "batch size"] and shown["differ"] == "batch size"
    assert [row[:2] for row in shown["rows"]] == [["run 8", "8"], ["run 32", "32"]]
    assert "These runs differ in batch size; all other settings are the same." in page(runs)
    assert "These runs have the same settings." in page(runs[:1] * 2)


def test_arms_are_in_the_order_of_the_summary(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("b", "a"))
    path = tmp_path / "x/results.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *sorted(rows)]) + "\n")
    read: Any = subjects.read(tmp_path / "x", None, pytest.fail)
    (group,) = curves(read)
    assert [row[0] for row in group["rows"]] == ["b", "a"]


@pytest.mark.slow
def test_a_loss_of_ones_own_has_no_unit(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    for arm, nats in (("ConvNet() HParams()", True), ("ConvNet() HParams() loss=mine", False)):
        (tmp_path / "x/protocol.json").write_text(json.dumps({"dataset": "fashion_mnist", "arm a": arm}))
        read: Any = subjects.read(tmp_path / "x", None, pytest.fail)
        assert ("Validation loss, nats" in page([read])) == nats
    run = made_run(SMALL)
    assert "loss, nats" in page([run])
    assert "nats" not in page([run._replace(config=replace(run.config, custom={"loss": "mine"}))])
