"""One call trains a network: models, losses and optimizers of the user's own, in Python and by name."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_same_run, contents, fails, history, result, succeeds

import cnnjax
from cnnjax.data import Loaded, from_arrays
from cnnjax.deploy.predict import probabilities, sampled
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files.identity import describe
from cnnjax.metrics import example_loss
from cnnjax.models import ConvNet
from cnnjax.runs import early_stopping
from cnnjax.runs.train_config import TrainConfig
from cnnjax.task import to_unit_interval

SHAPE, CLASSES = (6, 5, 2), 3


def made(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as bright as their class."""
    labels = np.arange(n) % CLASSES
    noise = np.random.default_rng(n).integers(0, 90, (n, *SHAPE))
    return (60 * labels.reshape(-1, 1, 1, 1) + noise).astype(np.uint8), labels


DATA = from_arrays(*made(60), *made(15))
SMALL: dict[str, Any] = {"epochs": 3, "batch_size": 8, "verbose": False}


class Normalised(nn.Module):
    """BatchNorm, and Flax's dropout."""

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.8)(nn.Conv(4, (3, 3))(x)))
        x = nn.Dropout(0.2, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes)(x)


class Bridged(nnx.Module):
    """Dropout and BatchNorm of NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(60, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.out = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.norm(self.dense(x.reshape(x.shape[0], -1)), use_running_average=not train)
        return self.out(self.dropout(nnx.relu(x), deterministic=not train))


def smoothed(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy(
        logits, optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), 0.1)
    )


def standardised(images: jax.Array) -> jax.Array:
    return (to_unit_interval(images) - 0.3) / 0.2


def brighter(key: jax.Array, image: jax.Array) -> jax.Array:
    return image + jax.random.randint(key, (), 0, 20).astype(image.dtype)


OWN: dict[str, Any] = {
    "optimizer": lambda hparams: optax.lion(hparams.learning_rate),
    "loss": smoothed,
    "preprocess": standardised,
    "augment": brighter,
}
EVALUATED = {name: OWN[name] for name in ("loss", "preprocess")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit") / "run"


@pytest.fixture(scope="module")
def run(out: Path) -> cnnjax.Run:
    return cnnjax.fit(Normalised(), DATA, **OWN, **SMALL, out=out)


@pytest.mark.slow
def test_data_may_be_what_keras_returns(run: cnnjax.Run, out: Path) -> None:
    keras = (made(60), made(15))
    again = cnnjax.load(out, keras, model=Normalised(), **EVALUATED, verbose=False)
    assert again.evaluate() == run.evaluate()
    with pytest.raises(ArgumentError, match=r"\(\(x_train, y_train\), \(x_test, y_test\)\)"):
        cnnjax.fit(Normalised(), made(60), **SMALL)  # pyright: ignore[reportArgumentType]


class Ignoring(nn.Module):
    """Asks for a dropout rate and does not use it."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, dropout_rate: jax.Array) -> jax.Array:
        return nn.Dense(CLASSES)(x.reshape(x.shape[0], -1))


class Dropped(nn.Module):
    """Flax's dropout, without statistics."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=not train)(x.reshape(x.shape[0], -1)))


@pytest.mark.slow
def test_masks_of_flax_are_sampled_after_the_preprocessing_of_ones_own(run: cnnjax.Run) -> None:
    mine = cnnjax.fit(Dropped(), DATA, preprocess=standardised, **SMALL)
    sample = sampled(mine.network, DATA.test, 400)
    np.testing.assert_allclose(sample.mean.sum(axis=1), 1, atol=1e-5)
    assert (sample.spread.max(axis=1) > 0).all()
    # At a small spread, softmax is nearly linear, so the mean over masks is the prediction.
    params = jax.tree.map(lambda leaf: leaf / 50, mine.params)
    flat = mine.network._replace(state=mine.network.state._replace(params=params))
    expected = probabilities(flat, DATA.test)
    error = sampled(flat, DATA.test, 400).spread.max() / 20
    np.testing.assert_allclose(sampled(flat, DATA.test, 400).mean, expected, atol=5 * error)
    with pytest.raises(ArgumentError, match="BatchNorm"):
        sampled(run.network, DATA.test, 3)


def test_it_leaves_what_the_command_leaves(run: cnnjax.Run, out: Path) -> None:
    for name, values in run.history.items():
        assert len(values) == 3 and (name == "seconds" or np.isfinite(values).all())
    assert [row[1:] for row in history(out)[1:]] == [
        tuple(str(run.history[name][epoch]) for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
        for epoch in range(3)
    ]
    assert run.evaluate() == result(out)["test"]
    assert run.evaluate("validation") == result(out)["validation"]
    probabilities = run.predict(DATA.test.images)
    assert np.mean(probabilities.argmax(axis=1) == DATA.test.labels) == pytest.approx(
        run.evaluate()["accuracy"]
    )
    assert len(run.plot().axes) == 2
    config = json.loads((out / "config.json").read_text())
    assert (config["model"], config["optimizer"], config["dropout_rate"]) == ("Normalised", "custom", 0.0)
    assert config["custom"].keys() == {"model", *OWN}


@pytest.mark.slow
def test_every_part_of_the_task_is_used() -> None:
    """Leaving any of them out trains another network."""

    def loss_without(name: str) -> float:
        others = {other: part for other, part in OWN.items() if other != name}
        return cnnjax.fit(Dropped(), DATA, **others, **{**SMALL, "epochs": 1}).history["loss"][0]

    losses = {name: loss_without(name) for name in ("nothing", *OWN)}
    assert len(set(losses.values())) == len(losses), losses


def test_a_run_is_loaded_with_the_objects_that_it_was_given(run: cnnjax.Run, out: Path) -> None:
    again = cnnjax.load(out, DATA, model=Normalised(), **EVALUATED, verbose=False)
    chex.assert_trees_all_equal(again.network.state.collections, run.network.state.collections)
    assert (again.evaluate(), again.history) == (run.evaluate(), run.history)
    with pytest.raises(UserError, match=r"cnnjax.load\(directory, loss=\.\.\., preprocess=\.\.\.\)"):
        cnnjax.load(out, DATA, model=Normalised(), verbose=False)
    with pytest.raises(UserError, match="the model differs"):
        cnnjax.load(out, DATA, model=Normalised(classes=3), **EVALUATED, verbose=False)
    assert "load it there" in fails(1, "evaluate", str(out))


def test_a_resumed_run_equals_one_without_interruption(run: cnnjax.Run, out: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(row: dict[str, float], state: object) -> None:
        raise Stop

    begin: Callable[..., cnnjax.Run] = lambda **more: cnnjax.fit(  # noqa: E731
        Normalised(), DATA, **OWN, **SMALL, out=tmp_path / "run", **more
    )
    with pytest.raises(Stop):
        begin(on_epoch=stop)
    epochs = []
    again = begin(resume=True, on_epoch=lambda row, state: epochs.append((row["epoch"], int(state.step))))
    assert epochs == [(2, 12), (3, 18)]
    assert_same_run(tmp_path / "run", out)
    chex.assert_trees_all_equal(again.network.state.collections, run.network.state.collections)
    with pytest.raises(UserError, match="the loss differs"):
        cnnjax.fit(
            Normalised(), DATA, **{**OWN, "loss": optax.softmax_cross_entropy_with_integer_labels}, **SMALL,
            out=tmp_path / "run", resume=True,
        )  # fmt: skip


@pytest.mark.slow
def test_a_module_of_nnx_trains_through_the_bridge_of_flax(tmp_path: Path) -> None:
    run = cnnjax.fit(nnx.bridge.to_linen(Bridged), DATA, **SMALL, out=tmp_path / "run")
    assert run.network.config.model == "Bridged"
    statistics = jax.tree.leaves(run.network.state.collections)
    assert len(statistics) == 2 and any(np.any(leaf != 0) for leaf in statistics)
    assert run.evaluate() == result(tmp_path / "run")["test"]


class Scale(NamedTuple):
    """Hyperparameters of the user's own."""

    step_size: Any = 0.1
    scale: Any = 1.0


class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, scale: jax.Array) -> jax.Array:
        return nn.Dense(CLASSES)(x.reshape(x.shape[0], -1)) * scale


def test_own_hyperparameters_reach_module_and_optimizer(tmp_path: Path) -> None:
    def descent(hparams: Scale) -> optax.GradientTransformation:
        return optax.sgd(hparams.step_size)

    out = tmp_path / "still"
    still = cnnjax.fit(Scaled(), DATA, optimizer=descent, hparams=Scale(0.0), out=out, **SMALL)
    double = cnnjax.fit(Scaled(), DATA, optimizer=descent, hparams=Scale(0.0, 2.0), **SMALL)
    assert len(set(still.history["val_loss"])) == 1, "a step of size 0 trains nothing"
    chex.assert_trees_all_equal(still.params, double.params)
    assert still.history["val_loss"] != double.history["val_loss"]
    again = cnnjax.load(out, DATA, model=Scaled(), hparams=Scale(0.0), verbose=False)
    assert again.evaluate() == still.evaluate()
    with pytest.raises(UserError, match="the hparams differ"):
        cnnjax.load(out, DATA, model=Scaled(), hparams=Scale(0.0, 2.0), verbose=False)


def test_without_out_nothing_is_written_or_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with redirect_stdout(io.StringIO()) as printed:
        run = cnnjax.fit(ConvNet(features=(2,), hidden=(4,)), DATA, dropout_rate=0.25, **SMALL)
        run.evaluate()
    assert not contents(tmp_path) and not printed.getvalue()
    assert (
        run.network.convnet.classes == CLASSES and run.network.config.network == "ConvNet, dropout rate 0.25"
    )


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("keras-dnn", {}, "unknown model 'keras-dnn'"),
        (Normalised(), {"dropout_rate": 0.5}, "uses neither an argument dropout_rate nor"),
        (Ignoring(), {"dropout_rate": 0.5}, "^dropout_rate 0.5 does nothing with Ignoring"),
        (Normalised(), {"pixel_scale": 2.0}, "pixel_scale and compute_dtype do nothing with Normalised"),
        (nn.Dense(3), {}, r"Dense: of 2 images the network makes float32\[2, 6, 5, 3\]"),
        (nn.Conv(3, (1, 1), strides=(1, 1, 1)), {}, "Conv: the network fails on images of 6 x 5 x 2"),
        ("lenet-swish", {}, "too small"),
        ("keras-cnn", {"optimizer": "adamm"}, "optimizer adamm is unknown"),
        ("keras-cnn", {"stop_early": -1}, "stop_early -1"),
        ("keras-cnn", {"batch_size": 49}, "larger than the training set"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    model: Any, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        cnnjax.fit(model, DATA, **{**SMALL, **more}, out=tmp_path / "run")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_the_images_of_predict_are_checked(run: cnnjax.Run) -> None:
    with pytest.raises(UserError, match="uint8"):
        run.predict(np.zeros((1, *SHAPE)))
    with pytest.raises(UserError, match="6 x 5 x 2"):
        run.predict(np.zeros((1, 6, 6, 2), np.uint8))


# Early stopping


def noise() -> Loaded:
    """Labels that images say nothing about: the validation loss soon rises."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (75, *SHAPE), dtype=np.uint8), rng.integers(0, CLASSES, 75)
    return from_arrays(images[:60], labels[:60], images[60:], labels[60:])


@pytest.mark.slow
def test_early_stopping_is_a_prefix_whose_result_is_the_best_epoch(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 6, "learning_rate": 0.02, "dropout_rate": 0.0}
    network = ConvNet(features=(2,), hidden=(8,))
    whole = cnnjax.fit(network, noise(), **settings).history["val_loss"]
    short = cnnjax.fit(network, noise(), **settings, stop_early=2, out=tmp_path / "run")
    losses = short.history["val_loss"]
    best = int(np.argmin(losses))
    assert losses == whole[: len(losses)] and len(losses) == best + 3 < 6
    assert short.evaluate("validation")["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert (short.network.epochs, result(tmp_path / "run")["epoch"]) == (best + 1, best + 1)
    assert short.evaluate() == result(tmp_path / "run")["test"]

    def stop(row: dict[str, float], state: object) -> None:
        if row["epoch"] == best + 2:
            raise KeyboardInterrupt

    again: dict[str, Any] = {**settings, "stop_early": 2, "out": tmp_path / "again"}
    with pytest.raises(KeyboardInterrupt):
        cnnjax.fit(network, noise(), **again, on_epoch=stop)
    for _ in range(2):  # the second time there is nothing left to do
        cnnjax.fit(network, noise(), **again, resume=True)
        assert_same_run(tmp_path / "again", tmp_path / "run")


def test_patience_counts_the_epochs_since_the_first_best() -> None:
    rows = [{"val_loss": loss} for loss in (3.0, 1.0, 2.0, 1.0)]
    assert [early_stopping.ends(rows[:n], 2) for n in range(5)] == [False] * 4 + [True]
    assert not early_stopping.ends(rows, 0) and not early_stopping.ends(rows, 3)
    assert (early_stopping.result_epoch(rows, 2), early_stopping.result_epoch(rows, 0)) == (2, 4)


# By name, on the command line


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data and a module of networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    np.savez(
        "own.npz",
        **dict(zip(("x_train", "y_train", "x_test", "y_test"), (*made(60), *made(15)), strict=True)),
    )
    Path(f"nets_{tmp_path.name}.py").write_text(
        "import flax.linen as nn\n"
        "class Net(nn.Module):\n"
        "    classes: int = 10\n"
        "    @nn.compact\n"
        "    def __call__(self, x, train):\n"
        "        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(2, (3, 3))(x))\n"
        "        x = nn.Dropout(0.1, deterministic=not train)(x.reshape(x.shape[0], -1))\n"
        "        return nn.Dense(self.classes)(x)\n"
        "class Normalised(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x, train):\n"
        "        x = nn.BatchNorm(use_running_average=not train)(x.reshape(x.shape[0], -1))\n"
        "        return nn.Dense(3)(x)\n"
        "normalised, number = Normalised(), 3\n"
    )
    return Path(f"nets_{tmp_path.name}")


@pytest.mark.slow
def test_a_module_by_its_import_path_goes_through_every_command(named: Path) -> None:
    model = ["train", "--model", f"{named}:Net", "--dataset", "own.npz", "--batch-size", "8"]
    succeeds(*model, "--epochs", "1", "--out", "run")
    succeeds("train", "--resume", "--epochs", "2", "--out", "run")
    succeeds("train", "--config", "run/config.json", "--out", "whole", "--epochs", "2")
    assert_same_run(Path("run"), Path("whole"))
    assert f"{named}:Net after 2 epochs" in succeeds("evaluate", "run")
    assert "of 5 right" in succeeds("predict", "run", "--split", "test")
    assert "its logits equal" in (exported := succeeds("export", "run")) or "at most" in exported
    assert "needs a ConvNet" in fails(2, "export", "run", "--format", "onnx")
    assert "Non-trainable params: 4" in succeeds("summary", "--model", f"{named}:Net")


@pytest.mark.slow
def test_a_module_by_its_import_path_goes_with_parts_from_python(named: Path) -> None:
    made: dict[str, Any] = {"model": f"{named}:Net", "data": DATA, "loss": smoothed, "out": "run"}
    made |= SMALL | {"epochs": 1}
    by_name = cnnjax.fit(**made).evaluate()
    assert cnnjax.fit(**made, resume=True).evaluate() == by_name
    assert cnnjax.load("run", DATA, loss=smoothed, verbose=False).evaluate() == by_name
    made["loss"] = example_loss
    with pytest.raises(UserError, match="the loss differs from that of"):
        cnnjax.fit(**made, resume=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Net", "No module named 'nowhere'"),
        (":Nothing", "no attribute 'Nothing'"),
        (":number", "int"),
    ],
)
def test_a_wrong_import_path_is_one_line(name: str, message: str, named: Path) -> None:
    path = name if name.startswith("nowhere") else f"{named}{name}"
    assert message in fails(2, "train", "--model", path, "--dataset", "own.npz")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_two_devices_train_batch_norm_as_one_does(named: Path) -> None:
    """Statistics of half a batch would change the loss by more than a hundredth."""
    common = ["train", "--model", f"{named}:normalised", "--dataset", "own.npz", "--batch-size", "8"]
    succeeds(*common, "--epochs", "1", "--out", "one", "--devices", "1")
    for by in ("jit", "pmap"):
        succeeds(*common, "--epochs", "1", "--out", by, "--devices", "2", "--parallel", by)
        one, two = (np.array(history(Path(run))[1], float) for run in ("one", by))
        np.testing.assert_allclose(one, two, rtol=1e-4)


@pytest.mark.slow
def test_a_file_of_settings_is_what_the_flags_are(named: Path) -> None:
    Path("run.toml").write_text('model = "keras-cnn"\nepochs = 1\nbatch_size = 16\ndataset = "own.npz"\n')
    succeeds("train", "--config", "run.toml", "--batch-size", "8", "--out", "file")
    succeeds("train", "--epochs", "1", "--batch-size", "8", "--dataset", "own.npz", "--out", "flags")
    assert_same_run(Path("file"), Path("flags"))
    for text, message in (
        ("epoch = 1", "'epoch'"),
        ('epochs = "1"', "epochs = '1'"),
        ("epochs", "cannot read"),
    ):
        Path("run.toml").write_text(text)
        assert message in fails(2, "train", "--config", "run.toml")
    assert "cannot read" in fails(2, "train", "--config", "missing.toml")


def test_the_version_is_printed() -> None:
    assert succeeds("--version").startswith(f"cnnjax {cnnjax.__version__} (jax {jax.__version__}, flax ")


# Identity


def shifted(by: int) -> Callable[[int], int]:
    def shift(x: int) -> int:
        return x + by

    return shift


def test_functions_are_described_by_source_and_enclosed_values() -> None:
    assert describe(shifted(1)) == describe(shifted(1)) != describe(shifted(2))
    one, same, other = [lambda x: x + 1, lambda x: x + 1, lambda x: x + 2]  # fmt: skip
    assert describe(one) == describe(same) != describe(other)


SOURCES = [
    "f = lambda x: x * {}",
    "f = lambda x: x in {{'a', 'b', {}}}",
    "def f(x):\n    def inside(y): return y * {}\n    return inside(x)",
    "class f:\n    def __call__(self, x): return x * {}",
    "class f:\n    factor = {}\n    def __call__(self, x): return x * self.factor",
]


@pytest.mark.parametrize("source", SOURCES)
def test_functions_without_source_are_described_by_their_code(source: str) -> None:
    def made(number: int) -> str:
        scope = {"__name__": "prompt"}
        exec(source.format(number), scope)
        return describe(scope["f"])

    assert made(2) == made(2) != made(3)


def test_functions_without_source_are_described_alike_in_every_process() -> None:
    lines = ["from cnnjax.files.identity import describe"]
    for source in SOURCES:
        lines += [f"exec({source.format(2)!r})", "print(describe(f))"]
    texts = {
        subprocess.check_output(
            [sys.executable, "-c", "\n".join(lines)], text=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in "12"
    }
    assert len(texts) == 1 and texts.pop().count("\n") >= len(SOURCES)


def test_functions_are_described_by_what_their_source_does_not_say() -> None:
    half, third = (lambda x, by=by: x / by for by in (2, 3))
    assert describe(half) != describe(third)
    assert describe(lambda x, by=2: x / by).count(" ") == 1, "a literal is in the source"
    assert describe(np.linspace(0, 1, 2000)) != describe(np.linspace(0, 1, 2000).round(9))


def test_an_attribute_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        cnnjax.fitt  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_misspelt_keyword_is_told_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"'learning_rat' \(did you mean learning_rate\?\)"):
        cnnjax.fit("keras-cnn", learning_rat=0.1)
    with pytest.raises(TypeError, match=r"'schedul' \(did you mean schedule\?\)"):
        cnnjax.fit("keras-cnn", schedul="cosine")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "3"}, "epochs '3' must be a whole number"),
        ({"epochs": 2.5}, "epochs 2.5 must be a whole number"),
        ({"learning_rate": "0.1"}, "learning_rate '0.1' must be a number"),
        ({"optimizer": "custom"}, "optimizer custom is unknown; use one of adam, rmsprop, sgd, adamw$"),
    ],
)
def test_values_of_a_wrong_kind_are_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        cnnjax.fit("keras-cnn", loss=lambda logits, labels: labels, **given)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: Any = {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "mask_seed": np.int32(2)}
    plain = TrainConfig(epochs=3, learning_rate=0.5, mask_seed=2)
    assert json.loads(json.dumps(asdict(TrainConfig(**numbers)))) == asdict(plain)
