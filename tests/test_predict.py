"""`predict` prints class probabilities beside the labels."""

import io
import json
import os
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MORE, Ended, new_process, rename, succeeds, terminal, train
from PIL import Image

from cnnjax import cli
from cnnjax.cli import runner
from cnnjax.cli.predict import Predict
from cnnjax.data import Dataset, load
from cnnjax.deploy.predict import probabilities, sampled, trained
from cnnjax.errors import ArgumentError
from cnnjax.keys import Masks, streams
from cnnjax.runs import run_directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predict") / "run"
    succeeds(
        *train(out, "--epochs", "2", "--model", "lenet-swish", "--batch-size", "8", "--data-dir", str(MORE))
    )
    return out


def main(*arguments: str) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = runner.run({"predict": Predict, "other": Predict}, "", ["predict", *arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def rows(printed: str, width: int = 14) -> list[list[str]]:
    """The cells of the rows with this many."""
    cells = ([cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line)
    return [row for row in cells if len(row) == width]


@pytest.mark.slow
def test_the_table_has_the_first_test_images(run: Path) -> None:
    ended = main(str(run))
    assert (ended.code, ended.err) == (0, "")
    table = rows(ended.out)
    data = load("fashion_mnist", MORE, announce=lambda _: None).test
    assert [row[0] for row in table] == list("01234")
    assert [int(row[1]) for row in table] == data.labels[:5].tolist()
    shares = np.array([[float(cell) for cell in row[4:]] for row in table])
    assert all(re.fullmatch(r"[01]\.\d\d", cell) for row in table for cell in row[3:])
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=10 * 0.005)
    for row, share in zip(table, shares, strict=True):
        assert share[int(row[2])] == share.max() == float(row[3])


@pytest.mark.parametrize(
    "more", [(), pytest.param(("--mc", "20"), marks=pytest.mark.slow), ("0.png", "--mc", "20")]
)
def test_a_narrow_terminal_has_the_two_likeliest(
    more: tuple[str, ...], run: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch) as lines:
        assert cli.main(["predict", str(run), *more]) == 0
    out = "\n".join(lines)
    assert max(len(line) for line in lines if line[:1] in "│┃┏┡└") <= 80
    assert "│ image │" in out.replace("┃", "│") and "predicted" in out
    number = r"[01]\.\d\d" + (r" ±0\.\d\d" if more else "")
    for row in rows(out, width=5 - bool(more[1:2] and more[0] != "--mc")):
        assert re.fullmatch(number, row[-2]) and re.fullmatch(rf"\d {number}", row[-1])
        assert float(row[-2][:4]) >= float(row[-1][2:6])


def test_the_probabilities_match_the_results_of_the_run(run: Path) -> None:
    network = trained(run, announce=lambda _: None)
    test = load("fashion_mnist", MORE, announce=lambda _: None).test
    predicted = probabilities(network, test)
    assert network.epochs == 2
    recorded = json.loads((run / "result.json").read_text())["test"]
    assert np.mean(predicted.argmax(axis=1) == test.labels) == pytest.approx(recorded["accuracy"])
    loss = -np.log(predicted[np.arange(len(test.labels)), test.labels]).mean()
    assert loss == pytest.approx(recorded["loss"], rel=1e-4)


def test_mistakes_are_listed_and_drawn(run: Path) -> None:
    ended = main(str(run), "--mistakes", "--first", "2", "--split", "test")
    assert ended.code == 0, ended
    assert "This network confuses 3 and 5 on" in ended.out
    assert (run / "confused.png").read_bytes().startswith(b"\x89PNG")
    run_directory.require_own(run)
    assert len(rows(ended.out)) == 2


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--first", "0"), "at least 1"),
        (("--first", "100000"), "there are"),
        (("--split", "all"), "split"),
        (("--mc", "1"), "--mc"),
        (("--mc", "10001"), "--mc"),
        (("--seed", "1"), "--mc"),
        (("--mc", "5", "--seed", "-1"), "--seed"),
        (("x.png", "--first", "3"), "--first"),
        (("x.png", "--mistakes"), "--mistakes"),
    ],
)
def test_a_wrong_argument_is_a_one_line_error(flags: tuple[str, ...], word: str, run: Path) -> None:
    ended = main(str(run), *flags)
    assert ended.code == 2 and word in ended.err and ended.err.count("\n") == 1, ended


def test_a_directory_without_a_run(tmp_path: Path) -> None:
    ended = main(str(tmp_path))
    assert ended.code == 2 and "holds no run" in ended.err
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    ended = main(str(tmp_path))
    assert ended.code == 1 and "--resume" in ended.err


# Picture files


@pytest.fixture
def drawn(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten test digits, dark on light, as 0.png to 9.png, and files that show no digit."""
    directory = tmp_path_factory.mktemp("pictures")
    images = load("fashion_mnist", MORE).test.images
    for i, image in enumerate(images[:10, ..., 0]):
        sheet = np.pad(np.kron(255 - image, np.ones((5, 5), np.uint8)), (30, 90), constant_values=255)
        Image.fromarray(sheet).convert("RGB").save(directory / f"{i}.png")
    frames = [Image.fromarray(image) for image in images[:2, ..., 0]]
    frames[0].save(directory / "two.gif", save_all=True, append_images=frames[1:])
    filled = np.pad(np.full((40, 40), 255, np.uint8), 9)
    Image.fromarray(filled).save(directory / "square.png")
    Image.new("L", (40, 40)).save(directory / "blank.png")
    (directory / "text.png").write_text("a text")
    return directory


@pytest.fixture(scope="module")
def as_mnist(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, renamed to mnist, whose digits are 20 pixels high; the tiny data set is not all of it."""
    out = tmp_path_factory.mktemp("renamed") / "run"
    shutil.copytree(run, out)
    return rename(out, dataset="mnist")


def test_pictures_are_predicted_like_the_images_they_show(as_mnist: Path, drawn: Path) -> None:
    files = [f"{i}.png" for i in range(10)]
    table = rows(main(str(as_mnist), *files).out, width=13)
    network = trained(as_mnist, announce=lambda _: None)
    test = load("fashion_mnist", MORE).test
    predicted = probabilities(network, Dataset(test.images[:10], test.labels[:10]))
    assert [int(row[1]) for row in table] == predicted.argmax(axis=1).tolist()
    shares = np.array([[float(cell) for cell in row[3:]] for row in table])
    np.testing.assert_allclose(shares, predicted, atol=0.02)


def test_pictures_unlike_the_data_are_reported(run: Path, drawn: Path) -> None:
    names = [f"{i}.png" for i in range(10)]
    ended = main(str(run), *names, "square.png", "two.gif")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert any(line.startswith("square.png is unlike the images of fashion_mnist") for line in lines)
    assert any(line.startswith("two.gif: the first of its frames") for line in lines)


def test_likeness_needs_the_data(as_mnist: Path, drawn: Path) -> None:
    ended = main(str(as_mnist), "0.png")
    assert ended.code == 0 and len(rows(ended.out, width=13)) == 1
    assert "is not known" in ended.out and "not the canonical MNIST" in ended.out


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("blank.png", "blank"),
        ("text.png", "not a picture"),
        ("none.png", "no such file"),
        (".", "not a file"),
    ],
)
def test_an_unusable_file_is_a_one_line_error(name: str, word: str, run: Path, drawn: Path) -> None:
    ended = main(str(run), "0.png", name)
    assert ended.code == 1 and word in ended.err and ended.err.startswith(f"cnnjax: error: {name}")
    assert ended.err.count("\n") == 1 and not ended.out, ended


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are text there")
def test_a_file_name_that_is_not_text(as_mnist: Path, drawn: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\x1b.png"
    Path(os.fsdecode(odd)).write_bytes((drawn / "0.png").read_bytes())
    ended = new_process("predict", str(as_mnist), os.fsdecode(odd), "0.png")
    assert (ended.code, ended.err) == (0, ""), ended


# Monte-Carlo dropout


@pytest.mark.slow
def test_a_mask_is_a_function_of_seed_number_and_row(run: Path) -> None:
    network = trained(run, announce=lambda _: None)
    data = load("fashion_mnist", MORE).train
    model, rate = network.convnet, network.config.dropout_rate
    images = jnp.asarray(data.images[:4].astype(np.float32) / 255)
    stream = streams(jax.random.key(3)).dropout

    @jax.jit
    def one(mask: jax.Array) -> jax.Array:
        masks = Masks(stream, mask)
        logits: Any = model.apply({"params": network.params}, images, True, rate, masks)
        return jax.nn.softmax(logits)

    drawn = np.stack([one(jnp.uint32(mask)) for mask in range(7)])
    result = sampled(network, Dataset(data.images[:4], data.labels[:4]), 7, seed=3)
    np.testing.assert_allclose(result.mean, drawn.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(result.spread, drawn.std(axis=0, ddof=1), atol=1e-5)
    # More images than are drawn at a time change nothing for the first ones.
    more = sampled(network, Dataset(data.images[:503], data.labels[:503]), 7, seed=3)
    assert more.mean.shape == more.spread.shape == (503, 10)
    np.testing.assert_allclose(more.mean[:4], result.mean, atol=1e-5)


@pytest.mark.slow
def test_two_seeds_agree_within_their_spread(run: Path) -> None:
    network = trained(run, announce=lambda _: None)
    data = load("fashion_mnist", MORE).test
    one, other = (sampled(network, data, 400, seed) for seed in (0, 1))
    assert (one.mean != other.mean).any()
    np.testing.assert_allclose(one.mean.sum(axis=1), 1, atol=1e-5)
    error = np.sqrt((one.spread**2 + other.spread**2) / 400)
    clear = one.mean > 0.05  # where the mean of 400 is nearly normal
    deviation = ((one.mean - other.mean) / error)[clear]
    assert np.abs(deviation).max() < 5
    assert 0.9 < deviation.std() < 1.1


def test_the_spread_is_beside_the_mean(run: Path, drawn: Path) -> None:
    ended = main(str(run), "0.png", "--mc", "20", "--seed", "1")
    assert ended.code == 0 and "over 20 masks" in ended.out
    ((_, _, likeliest, then),) = rows(ended.out, width=4)
    assert re.fullmatch(r"[01]\.\d\d ±0\.\d\d", likeliest) and likeliest in f"{likeliest} {then}"
    assert main(str(run), "0.png", "--mc", "20", "--seed", "1").out == ended.out


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_mc_without_masks_is_refused(rate: float, run: Path) -> None:
    network = trained(run, announce=lambda _: None)
    network = network._replace(hparams=network.hparams._replace(dropout_rate=rate))
    with pytest.raises(ArgumentError, match="--mc"):
        sampled(network, load("fashion_mnist", MORE).test, 5)
