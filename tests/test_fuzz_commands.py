"""Any arguments of evaluate, predict and export, and any config.json, give a result or a one-line error."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY, Ended, contents, main, succeeds, train
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnjax import files
from cnnjax.data import load, sources
from cnnjax.deploy import export, predict
from cnnjax.errors import UserError
from cnnjax.runs import programs

SHARED = [HealthCheck.function_scoped_fixture]
"""The examples do not change the fixtures."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "run"
    succeeds(*train(out, "--epochs", "1", "--model", "lenet-swish"))
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """Replace networks, downloads and file writing; return what would have been written."""
    written: dict[Path, bytes] = {}

    def evaluation(task: object, state: object, hparams: object, dataset: Any) -> programs.Evaluation:
        return programs.Evaluation(0.0, 0.0, np.eye(10, dtype=np.float32)[dataset.labels])

    def sampled(network: object, dataset: Any, masks: int, seed: int) -> predict.Sampled:
        return predict.Sampled(*np.zeros((2, len(dataset.labels), 10), np.float32))

    def refused(*_: object) -> None:
        raise UserError("no network here")

    monkeypatch.setattr(programs, "evaluate_on", evaluation)
    monkeypatch.setattr(predict, "sampled", sampled)
    monkeypatch.setattr(export, "export", lambda *_: export.Exported(b"file", 0.0))
    monkeypatch.setattr(files, "write_bytes", written.__setitem__)
    monkeypatch.setattr(sources, "fetch", refused)
    return written


@pytest.fixture
def directory(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run, an image, a text file and an empty directory."""
    (tmp_path / "run").symlink_to(run)
    image = load("fashion_mnist", TINY).test.images[0, ..., 0]
    Image.fromarray(image).save(tmp_path / "digit.png")
    (tmp_path / "text").write_text("a text")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_answer_or_one_line(ended: Ended) -> None:
    assert ended.code in (0, 1, 2), ended
    assert ended.err.count("\n") == (ended.code != 0), ended
    assert "--debug" not in ended.err and len(ended.err) < 2000, ended


# Flags

COMMANDS = st.sampled_from(["evaluate", "predict", "export"])
NAMES = ["split", "data-dir", "first", "mc", "seed", "mistakes", "format", "out", "model"]
FLAGS = st.sampled_from([f"--{name}" for name in NAMES])
PLACES = st.sampled_from(["run", "digit.png", "text", "empty", "nowhere", ".", "", "-", "run/config.json"])
VALUES = st.sampled_from(["train", "validation", "test", "stablehlo", "onnx", "0", "1", "7", "-1", "None"])
# Arguments cannot contain a zero byte.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.one_of(st.integers().map(str), st.floats().map(str))


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=SHARED)
@given(COMMANDS, st.lists(st.one_of(FLAGS, PLACES, VALUES, TEXTS, NUMBERS), max_size=6))
@example("predict", ["run", "digit.png", "--mc", "7", "--seed", "1"])
@example("predict", ["run", "digit.png", "text"])
@example("evaluate", ["run", "--split", "validation"])
@example("export", ["run", "--format", "onnx", "--out", "x"])
def test_any_arguments(quick: dict[Path, bytes], directory: Path, command: str, words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        return
    before = contents(directory)
    assert_answer_or_one_line(main(command, *words))
    assert contents(directory) == before


@pytest.mark.slow
@settings(suppress_health_check=SHARED)
@given(COMMANDS, FLAGS, st.one_of(VALUES, NUMBERS, TEXTS, PLACES))
def test_any_value_of_a_flag(
    quick: dict[Path, bytes], directory: Path, command: str, flag: str, value: str
) -> None:
    assert_answer_or_one_line(main(command, "run", f"{flag}={value}"))


# A damaged config.json

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(
            ["keras-cnn", "lenet-swish", "mnist", "kmnist", "adam", "rmsprop", "all", 0, 0.5, 1e308]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = ["model", "dataset", "dropout_rate", "epochs", "batch_size", "learning_rate", "seed", "optimizer"]
CHANGES = st.dictionaries(
    st.sampled_from([*KEYS, "train_split", "compute_dtype", "pixel_scale", "data_dir", "new"]), JSON
)
ASKED = st.sampled_from(
    [
        ["evaluate", "RUN"],
        ["evaluate", "RUN", "--split", "validation"],
        ["predict", "RUN"],
        ["predict", "RUN", "--mc", "3"],
        ["predict", "RUN", "digit.png"],
        ["export", "RUN", "--out", "x"],
    ]
)


def damaged(run: Path, directory: Path, content: bytes, checkpoints: bool) -> None:
    shutil.rmtree(directory / "RUN", ignore_errors=True)
    shutil.copytree(run, directory / "RUN")
    (directory / "RUN" / "config.json").write_bytes(content)
    if not checkpoints:
        shutil.rmtree(directory / "RUN" / "checkpoints")


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=SHARED)
@given(ASKED, CHANGES, st.lists(st.sampled_from(KEYS), max_size=2), st.booleans())
@example(["predict", "RUN"], {"model": "keras-cnn"}, [], True)
@example(["predict", "RUN"], {"model": "resnet"}, [], True)
@example(["evaluate", "RUN"], {"dataset": "cifar"}, [], True)
@example(["evaluate", "RUN"], {"dataset": "mnist", "data_dir": None}, [], True)
@example(["evaluate", "RUN"], {"pixel_scale": 1e308}, [], True)
@example(["predict", "RUN", "--mc", "3"], {"dropout_rate": 0.0}, [], True)
def test_any_configuration(
    quick: dict[Path, bytes],
    run: Path,
    directory: Path,
    asked: list[str],
    changes: dict[str, object],
    missing: list[str],
    checkpoints: bool,
) -> None:
    config = json.loads((run / "config.json").read_text()) | changes
    for name in missing:
        config.pop(name, None)
    damaged(run, directory, json.dumps(config).encode(), checkpoints)
    before = contents(directory)
    assert_answer_or_one_line(main(*asked))
    assert contents(directory) == before


@settings(suppress_health_check=SHARED)
@given(
    ASKED,
    st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode())),
    st.booleans(),
)
@example(["evaluate", "RUN"], b"[" * 100_000, True)
@example(["evaluate", "RUN"], b'{"model": ' + b"9" * 5000 + b"}", False)
def test_any_bytes_as_configuration(
    quick: dict[Path, bytes], run: Path, directory: Path, asked: list[str], content: bytes, checkpoints: bool
) -> None:
    damaged(run, directory, content, checkpoints)
    assert_answer_or_one_line(main(*asked))
