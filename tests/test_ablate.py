"""An ablation in one call: what it leaves and returns, and what it refuses before it leaves anything."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TINY, environment

from cnnjax import experiment
from cnnjax.api.ablation import ablate
from cnnjax.config import HParams
from cnnjax.data import from_arrays
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, Protocol, checks, engine
from cnnjax.experiment.identity import arm_identity
from cnnjax.experiment.protocol import cores, divide, use_every_core
from cnnjax.experiment.results import Store
from cnnjax.metrics import example_loss
from cnnjax.models import ConvNet
from cnnjax.report import ablation, progress, tables
from cnnjax.report.ablation import Ablation
from cnnjax.stats import summarise
from cnnjax.stats.sentences import REHEARSAL

CLASSES = 3
EPOCHS, SEEDS = 2, 2
FIGURES = {"val_loss", "val_accuracy", "generalisation_gap", "accuracy_by_arm", "confused"}


@pytest.fixture(autouse=True)
def devices_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare what is not about figures their drawing."""
    monkeypatch.setattr(tables, "draw", lambda *_: None)


class Own(NamedTuple):
    """Hyperparameters that a network, a loss or an optimizer of the user's own may read."""

    learning_rate: Any = 1e-2
    rate: Any = 0.2
    scale: Any = 1.0


class Net(nn.Module):
    """BatchNorm and Flax's dropout."""

    classes: int = CLASSES

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, rate: jax.Array) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(4)(x.mean(1))))
        return nn.Dense(self.classes)(nn.Dropout(0.2, deterministic=not train)(x.reshape(len(x), -1)) * rate)


class Linear(nn.Module):
    """A network whose logits `change` may spoil."""

    change: Callable[[jax.Array], Any] = lambda logits: logits
    classes: int = CLASSES

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        return self.change(nn.Dense(self.classes)(x.reshape(len(x), -1)))


def smoothed(logits: jax.Array, labels: jax.Array, by: float = 0.1) -> jax.Array:
    return optax.softmax_cross_entropy(
        logits, optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), by)
    )


def centred(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255 - 0.5


def mirrored(key: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key), image, image[:, ::-1])


def descent(hparams: Own) -> optax.GradientTransformation:
    return optax.sgd(hparams.learning_rate, momentum=0.9)


def data(classes: int = CLASSES) -> Any:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (48, 4, 4, 1), np.uint8), np.arange(48) % classes
    return from_arrays(images, labels, images[:12], labels[:12], name="drawn")


SMALL: dict[str, Any] = {"epochs": EPOCHS, "seeds": SEEDS, "batch_size": 8}
OWN = {"loss": smoothed, "preprocess": centred, "augment": mirrored, "optimizer": descent}


def ours(out: Path, **more: Any) -> Ablation:
    arms = {"rate 1": (Net(), Own(rate=1.0)), "rate_2 & [b]": (Net(), Own(rate=2.0))}
    return ablate(arms, data(), **{**SMALL, **OWN, "out": out, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ablation]:
    out = tmp_path_factory.mktemp("ablation") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "use_every_core", lambda: None)
        return out, ours(out)


# What it leaves and returns


def test_it_leaves_what_an_experiment_leaves(whole: tuple[Path, Ablation]) -> None:
    out, result = whole
    assert {path.stem for path in out.glob("*.png")} == FIGURES
    assert json.loads((out / "summary.json").read_text()) == result.summary
    summary = summarise(result.results.final("val_accuracy"), result.results.arms)
    assert result.summary["val_accuracy"] == summary.as_dict()
    assert result.conclusion == result.summary["conclusion"] and "Against rate 1, in" in result.conclusion
    assert result.summary["rehearsal"] and result.conclusion.startswith(REHEARSAL)
    assert np.isfinite(result.results.final("val_loss")).all()
    assert not np.array_equal(*result.results.final("val_loss"))
    line = "drawn, 38 training images, batch 8, descent 0.01, loss smoothed, preprocess centred, augment "
    assert result.protocol == f"{line}mirrored, 2 epochs, 2 paired seeds"
    assert "paired seeds" in repr(result) and "0x" not in repr(result)


def test_a_second_call_trains_nothing_and_says_the_same(
    whole: tuple[Path, Ablation], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result = whole
    for module, name in ((checks, "require_determined"), (engine, "_train_block")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it began again"))
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert ours(out).summary == result.summary
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("undrawn")
def test_it_resumes_to_the_bit(
    whole: tuple[Path, Ablation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "require_determined", lambda *_: None)  # as `whole` has found out

    class Stop(Exception):
        """Stands for a kill of the process."""

    def kill(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        save = Store.save
        patch.setattr(Store, "save", lambda *arguments: (save(*arguments), kill()))
        with pytest.raises(Stop):
            ours(tmp_path)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 2 * SEEDS, "one epoch was done"
    ours(tmp_path)
    for name in ("results.csv", "summary.json", "protocol.json"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_other_pieces_are_another_protocol(whole: tuple[Path, Ablation]) -> None:
    with pytest.raises(ArgumentError, match=r"another protocol.*choose another out"):
        ours(whole[0], loss=partial(smoothed, by=0.2))
    plain = Arm("a", Net(), Own(), descent)
    text = arm_identity(plain)
    assert "loss" not in text and "preprocess" not in text, "as directories always had it"
    assert arm_identity(replace(plain, augment=mirrored)).startswith(f"{text} augment=")


@pytest.mark.slow
def test_arms_may_differ_in_their_loss_or_augmentation(tmp_path: Path) -> None:
    arms = [
        Arm("plain", Linear(), HParams()),
        Arm("smooth", Linear(), HParams(), loss=smoothed),
        Arm("mirrored", Linear(), HParams(), augment=mirrored),
        Arm("own numbers", Linear(), Own()),
    ]
    results = ablate(arms, data(), **SMALL, out=tmp_path, learning_rate=1e-3).results
    assert len(set(results.values["loss"][:, 0, 0])) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_conv_net_gets_the_classes_of_the_data(tmp_path: Path) -> None:
    small = ConvNet(features=(), hidden=(4,))
    result = ablate({"default": small}, data(), **SMALL, out=tmp_path / "default")
    assert np.isfinite(result.results.final("val_loss")).all()
    other = ablate({"default": small.clone(classes=7)}, data(), **SMALL, out=tmp_path / "default")
    assert other.summary == result.summary


# Tables and figures


def rows_of(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in markdown.splitlines()]


def test_the_tables_agree_with_the_results(
    whole: tuple[Path, Ablation], capsys: pytest.CaptureFixture[str]
) -> None:
    result = whole[1]
    head, rule, *rows = rows_of(result.to_markdown())
    assert len(head) == len(rule) == 8 and len(rows) == 2
    accuracy = 100 * result.results.final("val_accuracy")
    for row, arm, values in zip(rows, result.results.arms, accuracy, strict=True):
        assert row[:2] == [arm.replace("_", r"\_"), str(SEEDS)]
        assert row[2] == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
    difference = float(np.mean(accuracy[1] - accuracy[0]))
    assert head[0] == "arm (a rehearsal)" and rows[1][6:] == [f"{difference:+.2f}", "too few seeds"]
    result.table()
    printed = capsys.readouterr().out
    for cell in (cell.replace("\\", "") for row in rows for cell in row):
        assert cell in printed and f"<td>{html.escape(cell)}</td>" in result._repr_html_()


def test_the_latex_table_has_whole_rows_and_no_bare_special_characters(whole: tuple[Path, Ablation]) -> None:
    lines = whole[1].to_latex().splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrrr}" and lines[-1] == r"\end{tabular}"
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = [line for line in lines if line.endswith(r" \\")]
    assert all(len(re.split(r"(?<!\\)&", row)) == 8 for row in rows) and len(rows) == 3
    assert rows[2].startswith(r"rate\_2 \& [b] & 2 & ")
    assert not any(re.search(r"(?<!\\)[%#_]", row) for row in rows)
    assert ablation._latex("-1.5 [+2, -3]") == "$-$1.5 [$+$2, $-$3]"
    assert ablation._latex("a-1 {x}") == r"a-1 \{x\}"
    assert ablation._latex("[b]") == "{}[b]"


def test_a_data_frame_has_a_row_for_each_arm_seed_and_epoch(
    whole: tuple[Path, Ablation], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = whole[1]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        result.to_dataframe()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    frame = result.to_dataframe()
    assert list(frame) == ["arm", "seed", "epoch", *result.results.values]
    cells = list(product(result.results.arms, range(SEEDS), range(1, EPOCHS + 1)))
    assert list(zip(*(frame[name] for name in ("arm", "seed", "epoch")), strict=True)) == cells
    for name, values in result.results.values.items():
        there = [values[result.results.arms.index(arm), seed, epoch - 1] for arm, seed, epoch in cells]
        np.testing.assert_array_equal(frame[name], there)


def test_any_metric_is_drawn(whole: tuple[Path, Ablation]) -> None:
    result = whole[1]
    for metric, label in (("val_loss", "validation loss"), ("accuracy", "accuracy in training")):
        (axis,) = result.plot(metric).axes
        assert axis.get_ylabel() == label and axis.get_xlabel() == "epoch"
        means = [line.get_ydata() for line in axis.lines if len(np.asarray(line.get_ydata())) == EPOCHS]
        np.testing.assert_allclose(np.stack(means), result.results.values[metric].mean(axis=1))
    axis, differences = result.plot("test_accuracy").axes
    assert differences.get_xlabel() == "paired difference to rate 1, points"
    assert [text.get_text() for text in axis.get_yticklabels()] == list(result.results.arms)
    assert result.plot()._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"  # pyright: ignore
    with pytest.raises(ArgumentError, match="unknown metric 'speed'; use one of loss, accuracy"):
        result.plot("speed")


def test_a_notebook_has_a_bar_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = progress.console()
    terminal.is_jupyter = True
    monkeypatch.setattr(progress, "console", lambda: terminal)
    with progress.member_progress() as update:
        for done in range(3):
            update(done, 2)
    half, full = capsys.readouterr().out.split("\r")[1:]
    assert half.count("█") == half.count("░") and "1 of 2" in half and not half.endswith("\n")
    assert "░" not in full and full.endswith("left\n")


# What it refuses


def wrong_shape(logits: jax.Array) -> jax.Array:
    return logits[:, :2]


def both(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    return logits, logits


def mean_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return example_loss(logits, labels).mean()


def to_float(key: jax.Array, image: jax.Array) -> jax.Array:
    del key
    return image[:2]


class Deep(nn.Module):
    """Fails on small images."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(CLASSES)(nn.Conv(2, (9, 9), padding="VALID")(x)[:, 0, 0])


class Unhashable(nn.Module):
    """Has an array as a field."""

    weights: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


LINEAR = Linear()
BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no arms": ({}, {}, "no arms"),
    "one name": ([Arm("a", LINEAR, HParams()), Arm("a", LINEAR, HParams())], {}, "two arms have the name a"),
    "one file": ({"a": LINEAR, "A": LINEAR}, {}, "two arms have the name A"),
    "no names": ([LINEAR, LINEAR], {}, "a dict from names to networks"),
    "one network": (LINEAR, {}, "a dict from names to networks"),
    "slash": ({"3/5": LINEAR}, {}, "'3/5' cannot name a file"),
    "empty name": ({"": LINEAR}, {}, "cannot name a file"),
    "long name": ({"n" * 300: LINEAR}, {}, "cannot name a file"),
    "line break": ({"a\nb": LINEAR}, {}, r"'a\\nb' cannot name a file"),
    "a class": ({"a": Linear}, {}, "arm a: .*give an instance"),
    "unknown model": ({"a": "resnet"}, {}, "'resnet'"),
    "no hparams": ({"a": (LINEAR, 0.5)}, {}, "arm a: the hparams are 0.5"),
    "nan": ({"a": (LINEAR, Own(scale=float("nan")))}, {}, "arm a: scale is nan; give a finite number"),
    "text": ({"a": (LINEAR, Own(scale="1"))}, {}, "arm a: scale is '1'"),
    "array": ({"a": (LINEAR, Own(scale=np.ones(2)))}, {}, "arm a: scale is array"),
    "rate": ({"a": LINEAR}, {"dropout_rate": 1.5}, "arm a: dropout_rate 1.5 must lie between 0 and 1"),
    "both hparams": ({"a": LINEAR}, {"hparams": Own(), "learning_rate": 0.1}, "in hparams"),
    "optimizer": (
        {"a": LINEAR},
        {"optimizer": "adma"},
        "optimizer adma is unknown .*adam\\?\\); use",
    ),
    "arm's optimizer": ([Arm("a", LINEAR, HParams(), "adma")], {}, "arm a: unknown optimizer 'adma'"),
    "optax": (
        {"a": LINEAR},
        {"optimizer": optax.sgd(0.1)},
        "unknown optimizer .* function from hparams",
    ),
    "schedule": ({"a": LINEAR}, {"schedule": "linear"}, "schedule linear is unknown; use one of constant"),
    "both schedules": ({"a": LINEAR}, {"optimizer": descent, "schedule": "cosine"}, "into the optimizer"),
    "momentum": ({"a": LINEAR}, {"momentum": 0.9}, "arm a: momentum 0.9 does nothing with optimizer adam"),
    "reads more": ({"a": LINEAR}, {"optimizer": lambda h: optax.sgd(h.speed)}, "arm a: the network fails"),
    "epochs": ({"a": LINEAR}, {"epochs": 0}, "epochs 0 must be a whole number, at least 1"),
    "seeds": ({"a": LINEAR}, {"seeds": 2.5}, "seeds 2.5 must be a whole number"),
    "first seed": ({"a": LINEAR}, {"first_seed": 2.5}, "first_seed 2.5 must be a whole number"),
    "looks": ({"a": LINEAR}, {"looks": 2.5}, r"looks \(2.5,\) must be whole numbers of seeds"),
    "one look": ({"a": LINEAR}, {"looks": 6}, "seeds 2 is none of the planned looks 6"),
    "margin": ({"a": LINEAR}, {"margin": "0.1"}, "margin 0.1 must be a positive number"),
    "batch": ({"a": LINEAR}, {"batch_size": 100}, "batch_size 100 is larger than the training set"),
    "size": ({"a": LINEAR}, {"train_size": 100}, "train_size 100 is more"),
    "primary": ({"a": LINEAR, "b": LINEAR}, {"primary": "a"}, "primary 'a' must name an arm other than"),
    "unhashable": ({"a": Unhashable(np.ones(2))}, {}, "arm a: .*hash.*give tuples"),
    "logits": ({"a": Linear(wrong_shape)}, {}, r"arm a: of 2 images the network makes float32\[2, 2\]"),
    "two outputs": ({"a": Linear(both)}, {}, r"arm a: .*makes .*float32\[2, 3\].*float32\[2, 3\]"),
    "small images": ({"a": Deep()}, {}, r"arm a: the network fails on images of 4 x 4 x 1: "),
    "loss": (
        {"a": LINEAR},
        {"loss": mean_loss},
        r"arm a: of 2 images the loss makes float32\[\].*number an image",
    ),
    "augment": ({"a": LINEAR}, {"augment": to_float}, "arm a: a training step fails: "),
    "no name": ({"a": LINEAR}, {"loss": partial(lambda x, logits, labels: labels, object())}, "arm a: "),
}


@pytest.mark.parametrize(("arms", "changed", "message"), BAD.values(), ids=list(BAD))
def test_bad_input_gets_one_line_and_leaves_nothing(
    arms: Any, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        ablate(arms, data(), **{**SMALL, **changed, "out": tmp_path / "new" / "out"})
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "neither a file nor an empty directory"


def test_data_must_be_data(tmp_path: Path) -> None:
    for wrong, message in ((np.ones(3), "from_arrays"), ("mnits", "unknown dataset 'mnits'")):
        with pytest.raises(ArgumentError, match=message):
            ablate({"a": LINEAR}, wrong, out=tmp_path / "out")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="data_dir is for a data set given by name"):
        ablate({"a": LINEAR}, data(), out=tmp_path / "out", data_dir=TINY)
    assert not list(tmp_path.iterdir())


def test_what_fails_before_the_first_epoch_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the compiler runs out of memory: the corrected settings then find no protocol in their way."""

    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(engine, "make_population", fails)
    with pytest.raises(MemoryError):
        ours(tmp_path / "out")
    assert not list(tmp_path.iterdir())


COUNT = [0.0]


def by_numpy(logits: jax.Array) -> jax.Array:
    return logits * np.float32(np.random.rand())  # noqa: NPY002


@jax.jit
def by_numpy_in_jit(logits: jax.Array) -> jax.Array:
    return by_numpy(logits)


def by_counter(logits: jax.Array) -> jax.Array:
    COUNT[0] += 1
    return logits + COUNT[0] * jnp.arange(CLASSES, dtype=jnp.float32)[None]


def called_back(function: Callable[[Any], Any], logits: jax.Array) -> jax.Array:
    @jax.custom_jvp
    def call(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda v: function(np.asarray(v)), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    call.defjvp(lambda primals, tangents: (call(*primals), *tangents))
    return call(logits)


def noisy(values: np.ndarray) -> np.ndarray:
    return values + np.random.rand(*values.shape).astype(np.float32)  # noqa: NPY002


def doubled(values: np.ndarray) -> np.ndarray:
    return 2 * values


def random_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return by_numpy(example_loss(logits, labels))


def random_brightness(key: jax.Array, image: jax.Array) -> jax.Array:
    del key
    return image + jnp.uint8(np.random.randint(256))  # noqa: NPY002


UNDETERMINED: dict[str, dict[str, Any]] = {
    "jit": {"model": Linear(by_numpy_in_jit)},
    "callback": {"model": Linear(partial(called_back, noisy))},
    "loss": {"model": LINEAR, "loss": random_loss},
    "augment": {"model": LINEAR, "augment": random_brightness},
}


@pytest.mark.parametrize("arm", UNDETERMINED.values(), ids=list(UNDETERMINED))
def test_what_keys_do_not_decide_is_refused(arm: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="arm mine: two runs with the same keys differ"):
        require_determined(Arm("mine", hparams=HParams(), **arm))


def test_a_conv_net_with_a_function_of_ones_own_is_not_taken_to_be_determined() -> None:
    network = ConvNet(features=(1,), hidden=(2,), classes=3)
    arms = [Arm("a", model, HParams()) for model in (network, network.clone(activation=by_numpy))]
    assert list(map(checks._tested, arms)) == [True, False]


@pytest.mark.slow
def test_of_several_arms_the_undetermined_one_is_named_and_nothing_left(tmp_path: Path) -> None:
    arms = [Arm("keyed", LINEAR, HParams()), Arm("mine", Linear(by_counter), HParams())]
    with pytest.raises(ArgumentError, match="arm mine: two runs with the same keys differ"):
        ablate(arms, data(), **SMALL, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", [Linear(partial(called_back, doubled)), Net()])
def test_a_callback_that_its_arguments_decide_is_no_fault(model: nn.Module) -> None:
    require_determined(Arm("a", model, Own()))


def require_determined(arm: Arm) -> None:
    splits, task = divide(data(), Protocol(batch_size=8)), engine._task(arm, Protocol(), 8)
    checks.require_model(arm, task, splits.train)
    checks.require_determined(arm, task, splits.train)


# Processes


AFTER_JAX = """
import sys
import jax, jax.numpy as jnp
{first}
from cnnjax.api.ablation import ablate
from cnnjax.models import ConvNet
from cnnjax.report import tables
tables.draw = lambda *_: None  # which is not what this is about
small = ConvNet(features=(), hidden=(2,))
before = dict(jax.config.values)
sizes = dict(seeds=1, epochs=1, batch_size=64)
ablate({{"a": small}}, "fashion_mnist", data_dir=sys.argv[1], out=sys.argv[2], **sizes)
changed = {{name for name, value in jax.config.values.items() if before[name] != value}}
print(jax.device_count(), sorted(changed))
"""


def test_after_other_code_of_jax_devices_and_settings_stay() -> None:
    before, devices = dict(jax.config.values), jax.device_count()
    use_every_core()
    assert (dict(jax.config.values), jax.device_count()) == (before, devices)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["jnp.ones(2).sum()", ""])
def test_it_works_after_other_code_of_jax(first: str, tmp_path: Path, programs: Path) -> None:
    env = environment(programs)
    del env["JAX_NUM_CPU_DEVICES"]
    command = [sys.executable, "-c", AFTER_JAX.format(first=first), str(TINY), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, env=env)
    assert ended.returncode == 0, ended.stderr
    expected = "1 []" if first else f"{cores()} ['jax_num_cpu_devices']"
    assert ended.stdout.splitlines()[-1] == expected
    assert "only one arm" in ended.stdout and (tmp_path / "out" / "summary.json").exists()
