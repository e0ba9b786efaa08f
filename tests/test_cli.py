"""The command line, end to end on the tiny data set; every error is one line and an exit code."""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rich.console
from helpers import FILES, TINY, contents, fails, history, main, saved_tree, succeeds, terminal, train
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax import cli, experiment
from cnnjax.config import HParams
from cnnjax.data import idx
from cnnjax.dropout import MASK_SCHEME
from cnnjax.experiment import Arm, Protocol
from cnnjax.keys import streams
from cnnjax.models import MODELS
from cnnjax.runs import training
from cnnjax.runs.run_directory import COLUMNS
from cnnjax.runs.screen import CLEAR, WIDTH, Screen


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run of two epochs, and its output."""
    out = tmp_path_factory.mktemp("runs") / "made" / "here"
    return out, succeeds(*train(out, "--epochs", "2"))


def test_a_run_directory_is_complete(done: tuple[Path, str]) -> None:
    out, _ = done
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "config.json").read_text()) == {
        "model": "keras-cnn",
        "dataset": "fashion_mnist",
        "dropout_rate": 0.5,
        "epochs": 2,
        "batch_size": 32,
        "learning_rate": 0.001,
        "seed": 0,
        "optimizer": "adam",
        "train_split": "part",
        "pixel_scale": 1.0,
        "compute_dtype": "float32",
        "schedule": "constant",
        "weight_decay": 0.0,
        "momentum": 0.0,
        "init_seed": None,
        "order_seed": None,
        "mask_seed": None,
        "stop_early": 0,
        "custom": {},
        "data_dir": str(TINY),
    }
    rows = [line.split(",") for line in (out / "history.csv").read_text().splitlines()]
    assert rows[0] == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert [row[0] for row in rows[1:]] == ["1", "2"]
    assert all(len([float(text) for text in row]) == 6 for row in rows[1:])
    for name in ("curves.png", "confusion_matrix.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_result_records_metrics_data_and_versions(done: tuple[Path, str]) -> None:
    out, _ = done
    record = json.loads((out / "result.json").read_text())
    assert (record["epochs"], record["parameters"], record["mask_scheme"]) == (2, 197_210, MASK_SCHEME)
    last = (out / "history.csv").read_text().splitlines()[-1].split(",")
    assert record["validation"] == {"loss": float(last[3]), "accuracy": float(last[4])}
    assert 0.2 < record["test"]["accuracy"] <= 1
    assert record["data"]["source"] == "data-dir"
    loaded = {file: idx.read(path) for file, path in idx.find(TINY).items()}
    assert record["data"]["sha256"] == idx.digests(loaded)
    assert {"jax", "flax", "optax", "numpy", "cnnjax"} <= record["versions"].keys()
    seconds = record["seconds"]
    assert seconds["compile"] > 0 < seconds["train"]
    assert seconds["total"] >= seconds["compile"] + seconds["train"]


def test_the_checkpoints_hold_the_state(done: tuple[Path, str]) -> None:
    out, _ = done
    import jax

    assert {path.name for path in (out / "checkpoints").iterdir()} == {"epoch-1", "epoch-2"}
    tree = saved_tree(out, 2)
    assert set(tree) == {"step", "params", "opt_state", "key_data"}
    assert int(tree["step"]) == 2 * 160 // 32
    assert tree["params"]["Dense_0"]["kernel"].shape == (1960, 100)
    assert tree["key_data"].tolist() == jax.random.key_data(streams(jax.random.key(0)).dropout).tolist()


def test_an_epoch_is_a_line(done: tuple[Path, str]) -> None:
    out, printed = done
    lines = printed.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 2
    for number, line in enumerate(epochs, 1):
        words = line.split()
        assert words[1] == f"{number}/2" and words[-1] == "s"
        assert words[2:-2:2] == ["loss", "acc", "val_loss", "val_acc"]
    assert lines[-1].startswith("test accuracy 0.") and lines[-1].endswith(str(out))
    assert "\x1b" not in printed


@pytest.mark.slow
def test_the_same_command_twice_is_the_same_run(done: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = done
    succeeds(*train(tmp_path / "again", "--epochs", "2"))
    assert history(tmp_path / "again") == history(out)
    succeeds(*train(tmp_path / "other", "--epochs", "2", "--seed", "1"))
    assert history(tmp_path / "other") != history(out)


def test_a_run_is_not_overwritten_without_being_asked(done: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(done[0], out)
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    line = fails(2, *train(out, "--epochs", "1"))
    assert "--resume" in line and "--overwrite" in line
    assert contents(out) == before
    assert "holds notes.txt" in fails(2, *train(out, "--epochs", "1", "--overwrite"))
    assert contents(out) == before
    (out / "notes.txt").unlink()
    succeeds(*train(out, "--epochs", "1", "--overwrite"))
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"epoch-1"}
    assert history(out) == history(done[0])[:2]


@pytest.mark.slow
def test_the_second_tutorials_protocol_is_its_member_of_the_reproduction(tmp_path: Path) -> None:
    flags = ("--optimizer", "rmsprop", "--train-split", "all", "--pixel-scale", "255", "--dropout-rate", "0")
    printed = succeeds(*train(tmp_path / "run", "--model", "lenet-swish", *flags, "--epochs", "2"))
    assert "200 images to train and 50 test images to validate" in printed
    model = MODELS["lenet-swish"].clone(pixel_scale=255.0)
    protocol = Protocol(2, 1, dataset="fashion_mnist", optimizer="rmsprop", train_split="all")
    splits = experiment.prepare(protocol, TINY, announce=lambda _: None)
    member = experiment.run([Arm("same", model, HParams(1e-3, 0.0))], protocol, splits, tmp_path / "member")
    losses = [float(row[3]) for row in history(tmp_path / "run")[1:]]
    np.testing.assert_allclose(losses, member.values["val_loss"][0, 0], rtol=1e-5)
    plain = train(tmp_path / "plain", "--model", "lenet-swish", *flags[2:], "--epochs", "2")
    succeeds(*plain)
    assert history(tmp_path / "plain") != history(tmp_path / "run")
    line = fails(2, "train", "--resume", "--out", str(tmp_path / "run"), "--optimizer", "adam")
    assert "--optimizer rmsprop (not adam)" in line


def test_the_default_directory_names_model_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outs = []
    monkeypatch.setattr(training, "train", lambda config, out, **_: outs.append(str(out)))
    succeeds("train")
    succeeds("train", "--model", "lenet-swish", "--seed", "7")
    assert outs == ["runs/keras-cnn-seed0", "runs/lenet-swish-seed7"]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--model", "resnet"), "keras-cnn"),
        (("--dataset", "cifar"), "fashion_mnist"),
        (("--dropout-rate", "-0.1"), "--dropout-rate"),
        (("--dropout-rate", "1.1"), "--dropout-rate"),
        (("--dropout-rate", "nan"), "--dropout-rate"),
        (("--dropout-rate", "half"), "half"),
        (("--epochs", "0"), "--epochs"),
        (("--epochs", "1.5"), "1.5"),
        (("--batch-size", "0"), "--batch-size"),
        (("--batch-size", "161"), "160"),
        (("--learning-rate", "0"), "--learning-rate"),
        (("--learning-rate", "inf"), "--learning-rate"),
        (("--seed", "-1"), "--seed"),
        (("--optimizer", "lion"), "rmsprop"),
        (("--schedule", "linear"), "one-cycle"),
        (("--momentum", "0.9"), "--optimizer sgd"),
        (("--mask-seed", "-1"), "--mask-seed"),
        (("--train-split", "most"), "all"),
        (("--pixel-scale", "0"), "--pixel-scale"),
        (("--checkpoint-every", "0"), "--checkpoint-every"),
        (("--resume", "--overwrite"), "--resume"),
        (("--rate", "0.5"), "--rate"),
        (("--epochs",), "--epochs"),
    ],
)
def test_a_wrong_argument_is_one_line(flags: tuple[str, ...], word: str, tmp_path: Path) -> None:
    assert word in fails(2, *train(tmp_path / "deep" / "run", *flags))
    assert not list(tmp_path.iterdir())


def _truncated(directory: Path) -> None:
    raw = (directory / "train-images-idx3-ubyte").read_bytes()
    (directory / "train-images-idx3-ubyte").write_bytes(raw[:-100])


def _wrong(directory: Path) -> None:
    shutil.copy(directory / "t10k-labels-idx1-ubyte", directory / "train-labels-idx1-ubyte")


def _magic(directory: Path) -> None:
    (directory / "t10k-images-idx3-ubyte").write_bytes(b"PK\x03\x04" + bytes(100))


def _missing(directory: Path) -> None:
    (directory / "t10k-labels-idx1-ubyte").unlink()


def _broken_gzip(directory: Path) -> None:
    raw = (directory / "train-labels-idx1-ubyte").read_bytes()
    (directory / "train-labels-idx1-ubyte").write_bytes(gzip.compress(raw)[:-20])


@pytest.mark.parametrize("damage", [_truncated, _wrong, _magic, _missing, _broken_gzip])
def test_damaged_data_files(damage: Callable[[Path], None], tmp_path: Path) -> None:
    directory = tmp_path / "idx"
    directory.mkdir()
    for file, path in idx.find(TINY).items():
        (directory / file).write_bytes(idx.read(path))
    damage(directory)
    line = fails(1, *train(tmp_path / "run"), "--data-dir", str(directory))
    assert str(directory) in line
    assert not (tmp_path / "run").exists()


def test_a_missing_data_directory(tmp_path: Path) -> None:
    assert "--data-dir" in fails(1, *train(tmp_path / "run"), "--data-dir", str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_out_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    fails(2, *train(tmp_path / "file"))
    assert "--out" in fails(1, *train(tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text() == "mine"
    fails(1, *train(tmp_path / ("x" * 300)))
    if Path("/proc/self").exists():  # which even root cannot write to
        assert "--out" in fails(1, *train(Path("/proc/run")))


def test_summary_is_the_table_that_keras_prints() -> None:
    out = succeeds("summary")
    assert "197,210" in out and "196,100" in out and "MaxPooling" in out.replace(" ", "")
    assert "9,532" in succeeds("summary", "--model", "lenet-swish")
    fails(2, "summary", "--model", "resnet")


def test_data_shows_its_contents() -> None:
    out = succeeds("data", "--dataset", "fashion_mnist", "--data-dir", str(TINY))
    for word in ("train", "validation", "test", "160", "50", "uint8", "source: data-dir"):
        assert word in out
    assert all(file in out for file in idx.FILES)


@pytest.mark.parametrize("command", [[], ["train"], ["summary"], ["data"]])
def test_help(command: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(*command, "--help")
    assert not end.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "no command trian (did you mean train?); use one of train, evaluate"),
        ("trian --epochs 2 --out x", "no command trian (did you mean train?); use one of train, evaluate"),
        ("train --epoch 2 --outt x", "no option --epoch; did you mean --epochs?"),
        ("power --sd 1", "--effect is missing: Smallest difference"),
        ("frobnicate", "no command frobnicate; use one of train"),
        ("train --epoch 2", "no option --epoch; did you mean --epochs?"),
        ("train --dropuot-rate=0.3", "no option --dropuot-rate; did you mean --dropout-rate?"),
        ("train --lr 0.1", "no option --lr; did you mean --learning-rate?"),
        ("train --zzz", "no option --zzz; see --help"),
        ("train mnist", "'mnist' is one argument too many"),
        ("train --epochs abc", "--epochs abc is not a whole number"),
        ("train --epochs 2.5", "--epochs 2.5 is not a whole number"),
        ("train --learning-rate x", "--learning-rate x is not a number"),
        ("train --epochs", "--epochs needs 1 value"),
        ("summary --image-shape 8 8", "--image-shape needs 3 values"),
        ("train --model keras-cn", "unknown model 'keras-cn' (did you mean keras-cnn?); use one of"),
        ("train --dataset mnits", "unknown dataset 'mnits' (did you mean mnist?); use one of"),
        ("train --optimizer admm", "--optimizer admm is unknown (did you mean adam?); use one of"),
        ("predict run --split tset", "--split tset is unknown (did you mean test?); use one of"),
        ("evaluate", "RUN is missing: Run directory"),
    ],
)
def test_a_mistake_is_met_with_help(arguments: str, message: str) -> None:
    assert message in fails(2, *arguments.split())


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with terminal(monkeypatch) as lines:
        assert cli.main(train(Path("run"), "--epochs", "1")) == 0
    assert max(map(len, lines)) <= 80, lines
    text = "\n".join(lines)
    assert re.search(r"epoch 1/1 ━[━─]*  loss \d+\.\d{4}  acc [01]\.\d{4}", text), text
    assert "epoch 1/1  loss" in text


def test_the_bar_tells_the_time_left_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a notebook, where it is plain text; epochs 3 to 6, after six of their twelve parts, in 12 s."""
    clock = iter((100.0, 112.0))
    monkeypatch.setattr("cnnjax.runs.screen.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    screen = Screen(6, first=3)
    assert screen.live
    screen.progress(4, 3, 3, {"loss": 0.25, "accuracy": 0.5})
    screen.epoch(dict(zip(COLUMNS, (4, 0.25, 0.5, 0.125, 0.75, 123.4), strict=True)))
    bar, line = capsys.readouterr().out.replace(CLEAR, "\n").strip().split("\n")
    assert bar == f"epoch 4/6 {'━' * WIDTH}  loss 0.2500  acc 0.5000  12 s left"
    assert line == "epoch 4/6  loss 0.2500  acc 0.5000  val_loss 0.1250  val_acc 0.7500  123.4 s"


# Fuzzed flags: any arguments give a run, or one line and exit code 1 or 2


def _no_run(*_: object, **__: object) -> dict[str, object]:
    return {}


NAMES = [
    "model",
    "dataset",
    "data-dir",
    "dropout-rate",
    "epochs",
    "batch-size",
    "learning-rate",
    "seed",
    "optimizer",
    "train-split",
    "pixel-scale",
    "out",
]
FLAGS = st.sampled_from([f"--{name}" for name in [*NAMES, "resume", "overwrite", "checkpoint-every"]])
NUMBERS = st.one_of(st.integers().map(str), st.floats().map(str), st.just("1e400"), st.just("0x10"))
WORDS = st.one_of(FLAGS, NUMBERS, st.text(max_size=8), st.just("None"), st.just("keras-cnn"))


@settings(max_examples=15)
@given(st.lists(WORDS, max_size=6))
def test_any_arguments(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", _no_run)
        ended = main("train", *words)
    assert ended.code in (0, 1, 2), ended
    assert ended.err.count("\n") == (ended.code != 0), ended
    assert "--debug" not in ended.err, ended
    assert len(ended.err) < 2000


@given(FLAGS, st.one_of(NUMBERS, st.text(max_size=20)))
def test_any_value_of_a_flag(flag: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", _no_run)
        ended = main("train", f"{flag}={value}")
    assert ended.code in (0, 1, 2) and "--debug" not in ended.err, ended
    assert ended.err.count("\n") == (ended.code != 0), ended


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "4294967295", "--dropout-rate", "1", "--learning-rate", "1e-45"),
        pytest.param(("--batch-size", "160", "--dropout-rate", "0"), marks=pytest.mark.slow),
    ],
)
def test_extreme_values_train(flags: tuple[str, ...], tmp_path: Path) -> None:
    succeeds(*train(tmp_path / "run", "--epochs", "1", *flags))


@pytest.mark.parametrize(
    ("code", "command", "wrong", "right"),
    [
        (2, "report", "results/abaltion", "results/ablation"),
        (2, "report", "result/ablation", "results/ablation"),
        (2, "verify", "results/abaltion", "results/ablation"),
        (2, "power --effect 1 --pilot", "results/abaltion", "results/ablation"),
        (2, "merge --out all results/ablation", "results/abaltion", "results/ablation"),
        (2, "runs", "resluts", "results"),
        (1, "train --dataset", "imges.npz", "images.npz"),
        (1, "train --data-dir", "stikc", "stick"),
        (1, "train --data-dir", "stick", "stick/mnist"),
    ],
)
def test_a_misspelt_path_is_told_the_right_one(
    code: int, command: str, wrong: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, "stick/mnist")
    Path("images.npz").touch()
    Path("results/ablation").mkdir(parents=True)
    Path("results/ablation/protocol.json").write_text("{}")
    cells = "arm,seed,epoch,val_accuracy\na,0,1,0.5\n"
    Path("results/ablation/results.csv").write_text(cells)
    before = contents(tmp_path)
    assert right in fails(code, *command.split(), wrong).replace(f"{wrong}:", "")
    assert contents(tmp_path) == before


def test_a_model_that_cannot_be_imported_is_told_the_right_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("ownnets.py").write_text("import flax.linen as nn\n\nclass Mine(nn.Module):\n    pass\n")
    for name, says in (
        ("ownnets.py:Mine", "give it as ownnets:Mine, in the directory of ownnets.py"),
        ("ownnets:Mien", "ownnets has no attribute 'Mien' (did you mean Mine?)"),
        ("ownets:Mine", "No module named 'ownets' (did you mean ownnets?)"),
    ):
        assert says in fails(2, "train", "--model", name)
