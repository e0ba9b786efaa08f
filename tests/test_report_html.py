"""`report` writes one self-contained page with the network inside, and escapes all text."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reports import Page, made_run, make_experiment
from runs import TINY, contents, fails, succeeds, train

from cnnjax.data import NAMES
from cnnjax.deploy.predict import trained
from cnnjax.errors import UserError
from cnnjax.models import MODELS, ConvNet
from cnnjax.plots import draw_bands, draw_differences, draw_history
from cnnjax.report.html.charts import Chart, chart
from cnnjax.report.html.network import exported
from cnnjax.report.html.page import TEMPLATES, page
from cnnjax.report.html.run_sections import compared, confusions
from cnnjax.report.html.subjects import CLASSES
from cnnjax.report.html.words import digits_for, interval, number, percent
from cnnjax.stats.intervals import wilson_interval

pytestmark = pytest.mark.usefixtures("shared_programs")
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
        assert name not in ("link", "iframe", "object", "base")
        for attribute in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(attribute) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), (name, value)


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
    low, high = wilson_interval(round(200 * accuracy), 200)
    assert f"{interval(100 * low, 100 * high, 2)}%" in whole.text()
    history = (run / "history.csv").read_text().splitlines()
    assert number(float(history[-1].split(",")[3])) in whole.text()
    assert result["versions"]["jax"] in whole.text()
    wrong = 200 - round(200 * accuracy)
    assert f"{wrong} test images of 200\nare misclassified" in whole.text()


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
    for tag, attributes, _ in drawn.shapes:
        assert "#" not in " ".join(attributes.values())
        if tag == "path":
            moved = re.findall(r"-?[\d.]+", attributes.get("transform", "translate(0 0)"))
            assert not re.search("nan|inf", attributes["d"])
            for point in re.findall(r"(-?[\d.]+) (-?[\d.]+)", attributes["d"]):
                for value, shift, size in zip(point, moved, drawn.size, strict=True):
                    assert -1 <= float(value) + float(shift) <= size + 1


@settings(deadline=None, max_examples=20)
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
    bounds = np.array([[1.0, nan, 2.0], [nan, nan, 1.5], [nan, nan, 3.0]])
    drawn = chart("d", lambda axis: draw_differences(axis, "abc", *bounds))
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
    import flax.linen as nn

    for model in (ConvNet(activation=nn.gelu), ConvNet(dropout="classic")):
        run = made_run(model)
        with pytest.raises(UserError, match="relu or swish"):
            exported(run.model, run.params)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_by_name_is_exported(name: str) -> None:
    run = made_run(MODELS[name])
    record = exported(run.model, run.params)
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
    assert "cannot write" in fails(1, "report", str(run), "--out", str(tmp_path / "no" / "x.html"))
    assert list(tmp_path.iterdir()) == [empty] and not list(empty.iterdir())


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("history.csv", "epoch,loss\n1,2\n", "damaged"),
        ("history.csv", "", "damaged"),
        ("history.csv", None, "cannot read"),
        ("result.json", "{", "damaged"),
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
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report.html"))
    result = json.loads((copy / "result.json").read_text())
    result["data"]["sha256"]["t10k-images-idx3-ubyte"] = "0" * 64
    (copy / "result.json").write_text(json.dumps(result))
    assert "--data-dir" in fails(2, "report", str(copy))
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


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    make_experiment(tmp_path / "x", ("a", "b"))
    (tmp_path / "x/predictions").mkdir()
    few = {"labels": np.zeros(7, np.uint8), "probability": np.ones(7, np.float32)}
    np.savez_compressed(tmp_path / "x/predictions/a, seed 0.npz", **few)
    assert "--data-dir" in fails(2, "report", str(tmp_path / "x"), "--data-dir", str(TINY))
    stored = {"labels": np.zeros(200, np.uint8), "probability": np.ones(200, np.float32)}
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
