"""What is on disk is compared with what else is on disk before it is believed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import TINY, assert_same_run, contents, fails, main, rename, succeeds, train
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax import experiment as experiments
from cnnjax.api.ablation import ablate
from cnnjax.data import idx
from cnnjax.deploy.predict import trained
from cnnjax.experiment.results import Store
from cnnjax.models import ConvNet
from cnnjax.report import tables
from cnnjax.runs import arrays, checkpoints, manifest, resumption, verification

EPOCHS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    succeeds(*train(out, "--epochs", str(EPOCHS)))
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "other"
    succeeds(*train(out, "--epochs", str(EPOCHS), "--seed", "1"))
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def test_a_whole_run_is_whole(run: Path) -> None:
    before = contents(run)
    assert succeeds("verify", str(run)) == f"{run}: whole, finished after 2 epochs\n"
    (run / "result.json").unlink()
    assert "whole, 2 of 2 epochs; train --resume continues" in succeeds("verify", str(run))
    (run / "result.json").write_bytes(before["result.json"])
    assert contents(run) == before
    assert "neither a run nor an experiment" in fails(2, "verify", str(run / "checkpoints"))
    assert "no directory given" in fails(2, "verify")


def _edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        text = (run / name).read_text()
        assert change(text) != text
        (run / name).write_text(change(text))

    return damage


def _cut(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:-20])

    return damage


def _remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def _lose_last(run: Path) -> None:
    shutil.rmtree(run / f"checkpoints/epoch-{EPOCHS}")


def _better(text: str) -> str:
    return re.sub(r'("accuracy": 0\.)\d', r"\g<1>9", text)


def _worse_row(text: str) -> str:
    return re.sub(r"^1,[^,]*", "1,0.25", text, flags=re.MULTILINE)


HEALED = {
    "history.csv is not": _edit("history.csv", _worse_row),
    "history.csv is not that of epoch-2": _edit("history.csv", lambda text: f"{text}3,1,1,1,1,1\n"),
    "history.csv is missing": _remove("history.csv"),
    "result.json has changed": _edit("result.json", _better),
    "result.json has changed since": _cut("result.json"),
    "curves.png has changed": _cut("curves.png"),
    "confusion_matrix.png is missing": _remove("confusion_matrix.png"),
    "model_card.md has changed": _edit("model_card.md", lambda text: text.replace("0.", "0.9")),
    "model_card.md is missing": _remove("model_card.md"),
    "config.json is damaged": _cut("config.json"),
    "config.json is missing": _remove("config.json"),
    "broken checkpoint epoch-2 (_METADATA has changed)": _cut("checkpoints/epoch-2/_METADATA"),
    "broken checkpoint epoch-2 (manifest.json is missing)": _remove("checkpoints/epoch-2/manifest.json"),
    "result.json is of 2 epochs, and the last whole checkpoint of 1": _lose_last,
}


ALIKE = {
    "history.csv is not that of epoch-2",
    "result.json has changed since",
    "confusion_matrix.png is missing",
    "model_card.md is missing",
    "config.json is missing",
}
"""Damages beside which there is another of the same kind."""


@pytest.mark.parametrize(
    "text", [pytest.param(text, marks=pytest.mark.slow if text in ALIKE else ()) for text in HEALED]
)
def test_what_is_said_to_be_mended_is_mended(text: str, run: Path, whole: Path) -> None:
    HEALED[text](run)
    ended = main("verify", str(run))
    assert ended.code == 1 and ended.err == "cnnjax: error: 1 of 1 directories are not whole\n"
    assert f"{run}: " in ended.out and text in ended.out
    assert all(line.endswith(f"train --resume --out {run} mends it") for line in ended.out.splitlines())
    printed = succeeds("train", "--resume", "--out", str(run))
    assert "nothing to do" not in printed
    assert_same_run(run, whole)
    succeeds("verify", str(run))
    before = contents(run)
    assert "nothing to do" in succeeds("train", "--resume", "--out", str(run))
    assert contents(run) == before


def test_the_result_of_another_run_is_found_and_replaced(run: Path, other: Path, whole: Path) -> None:
    for name in ("result.json", "curves.png", "confusion_matrix.png"):
        shutil.copy(other / name, run / name)
    assert "result.json is of another run than epoch-2" in main("verify", str(run)).out
    succeeds("train", "--resume", "--out", str(run))
    assert_same_run(run, whole)


def _renamed(run: Path, other: Path) -> None:
    (run / "checkpoints/epoch-2").rename(run / "checkpoints/epoch-20")
    shutil.rmtree(run / "checkpoints/epoch-1")


def _edited(run: Path, other: Path) -> None:
    _edit("config.json", lambda text: text.replace('"learning_rate": 0.001', '"learning_rate": 0.01'))(run)


def _too_few(run: Path, other: Path) -> None:
    _edit("config.json", lambda text: text.replace('"epochs": 2', '"epochs": 1'))(run)


def _of_another_run(run: Path, other: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")


def _other_best(run: Path, other: Path) -> None:
    shutil.rmtree(run / "checkpoints/epoch-1")
    shutil.copytree(other / "checkpoints/epoch-1", run / "checkpoints/epoch-1")


def _copied(run: Path, other: Path) -> None:
    shutil.copytree(run / "checkpoints/epoch-2", run / "checkpoints/epoch-40")


def _started(run: Path, other: Path) -> None:
    (run / "checkpoints/epoch-3").mkdir()


def _broken_best(run: Path, other: Path) -> None:
    _cut("checkpoints/epoch-1/_METADATA")(run)


REFUSED = {
    "epoch-20 (it is that of epoch 2, renamed)": _renamed,
    "learning_rate is 0.01, and was 0.001": _edited,
    "epochs is 1, and 2 are done": _too_few,
    "seed is 0, and was 1": _of_another_run,
}
REMEDIES = dict.fromkeys(REFUSED, "; put that back, or remove the file, and train --resume writes it again")
REMEDIES |= {next(iter(REFUSED)): "; restore one from a copy, or start again with --overwrite"}
ONLY_FOUND = {
    "epoch-1 belongs to another run than epoch-2": _other_best,
    "broken checkpoint epoch-1 (_METADATA has changed)": _broken_best,
}
STRAY = {
    "broken checkpoint epoch-40 (it is that of epoch 2, renamed); move it away": _copied,
    "broken checkpoint epoch-3 (manifest.json is missing); move it away": _started,
}


@pytest.mark.parametrize("text", STRAY)
def test_what_no_training_reaches_is_to_be_moved_away(text: str, run: Path, other: Path) -> None:
    STRAY[text](run, other)
    before = contents(run)
    assert main("verify", str(run)).out == f"{run}: {text}\n"
    assert "finished after 2 epochs: nothing to do" in succeeds("train", "--resume", "--out", str(run))
    assert contents(run) == before


def test_a_renamed_checkpoint_is_trained_again_and_then_to_be_moved_away(run: Path, whole: Path) -> None:
    (run / "checkpoints/epoch-2").rename(run / "checkpoints/epoch-40")
    first, second = main("verify", str(run)).out.splitlines()
    assert "epoch-40 (it is that of epoch 2, renamed); move it away" in first
    assert second.endswith(f"the last whole checkpoint of 1; train --resume --out {run} mends it")
    succeeds("train", "--resume", "--out", str(run))
    assert main("verify", str(run)).out.splitlines() == [first]
    shutil.rmtree(run / "checkpoints/epoch-40")
    assert_same_run(run, whole)
    succeeds("verify", str(run))


@pytest.mark.parametrize("text", REFUSED | ONLY_FOUND)
def test_what_nothing_mends_is_found_and_stays(text: str, run: Path, other: Path) -> None:
    (REFUSED | ONLY_FOUND)[text](run, other)
    before = contents(run)
    ended = main("verify", str(run))
    remedy = REMEDIES.get(text, "; restore it from a copy")
    assert ended.code == 1 and text in ended.out and ended.out.endswith(f"{remedy}\n"), ended
    if text in REFUSED:
        for command in ("evaluate", "predict", "export", "report", "train --resume --out"):
            ended = main(*command.split(), str(run))
            assert ended.code in (1, 2) and ended.err.count("\n") == 1, ended
            assert text in ended.err
    assert contents(run) == before


@settings(max_examples=60)
@given(st.sampled_from(["config.json", "result.json", "history.csv", "curves.png"]), st.integers(0, 10**9))
def test_any_flipped_bit_is_found(whole: Path, name: str, number: int) -> None:
    path = whole / name
    raw = path.read_bytes()
    changed = bytearray(raw)
    changed[number // 8 % len(raw)] ^= 1 << number % 8
    try:
        path.write_bytes(changed)
        if not verification.problems(whole):
            was, now = ({**json.loads(text), "seconds": 0} for text in (raw, bytes(changed)))
            # Where the data are may change, and more epochs may be asked for; JSON has many forms.
            free = {"data_dir": "", "epochs": 0} if name == "config.json" else {}
            assert was | free == now | free, (number // 8, number % 8)
    finally:
        path.write_bytes(raw)


@pytest.mark.parametrize("damage", [_lose_last, _cut("checkpoints/epoch-2/_METADATA")])
def test_no_earlier_network_takes_the_place_of_the_result(damage: Callable[[Path], None], run: Path) -> None:
    damage(run)
    before = contents(run)
    for command in ("evaluate", "predict", "export", "report"):
        line = fails(1, command, str(run)).splitlines()[-1]
        assert "result.json is of 2 epochs, and the last whole checkpoint of 1; " in line
        assert line.endswith(f"train --resume --out {run} trains the rest")
    assert contents(run) == before
    (run / "result.json").unlink()  # the run is unfinished, and its last network is that of epoch 1
    assert trained(run, lambda _: None).epochs == 1


# The data and the settings of JAX


def test_other_data_are_refused_by_their_first_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    loaded = idx.unpack({file: idx.read(path) for file, path in idx.find(TINY).items()})
    images = loaded[1].images.copy()
    images[0, 0, 0] += 1
    for file, raw in idx.pack(loaded[0], loaded[1]._replace(images=images)).items():
        (tmp_path / "idx" / file).write_bytes(raw)
    for command in ("evaluate", "predict", "report"):
        line = fails(2 if command == "report" else 1, command, str(run), "--data-dir", str(tmp_path / "idx"))
        assert command == "report" or "sha256 of t10k-images-idx3-ubyte" in line


def test_other_settings_of_jax_are_named(run: Path) -> None:
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        printed = succeeds("evaluate", str(run))
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert "other settings of JAX (jax_default_matmul_precision)" in printed
    assert "settings of JAX" not in succeeds("evaluate", str(run))


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "report"])
def test_64_bits_are_refused_by_the_name_of_their_switch(command: str, run: Path) -> None:
    with jax.enable_x64(True):
        assert "unset JAX_ENABLE_X64" in fails(2, command, str(run))


# What a checkpoint holds


def _rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Replace the arrays of a checkpoint under a manifest that fits them."""
    tree, content = arrays.read(path), manifest.read(path)
    shutil.rmtree(path)
    arrays.write(path, change(tree))
    manifest.write(path, content)


def _half(tree: Any) -> Any:
    tree["params"]["Dense_1"]["bias"] = tree["params"]["Dense_1"]["bias"].astype(np.float16)
    return tree


def _longer(tree: Any) -> Any:
    tree["params"]["Dense_1"]["bias"] = np.zeros(11, np.float32)
    return tree


def _without(tree: Any) -> Any:
    del tree["params"]["Dense_1"]["bias"]
    return tree


@pytest.mark.parametrize(
    ("change", "found"), [(_half, "float16[10]"), (_longer, "float32[11]"), (_without, "missing")]
)
def test_arrays_of_another_shape_or_dtype_are_refused_by_name(
    change: Callable[[Any], Any], found: str, run: Path
) -> None:
    _rewrite(run / "checkpoints" / "epoch-2", change)
    (run / "result.json").unlink()
    for command in ("evaluate", "train --resume --out"):
        line = fails(1, *command.split(), str(run))
        assert f"params/Dense_1/bias is {found}, and this program needs float32[10]" in line


def test_a_tree_is_read_as_it_was_written(tmp_path: Path) -> None:
    import optax

    params = {"a": np.ones(3, np.float32), "b c.d": [np.zeros((2, 1), np.float16), (np.array(7),)]}
    state = optax.chain(optax.clip(1.0), optax.adamw(1e-3), optax.trace(0.9)).init(params)
    tree = {"params": params, "opt_state": jax.tree.map(np.asarray, state), "empty": {}}
    arrays.write(tmp_path / "tree", tree)
    back = arrays.read_as(tmp_path / "tree", tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), back, tree)


# Beside a training process


def test_a_reader_goes_on_when_its_checkpoint_is_pruned(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, verify = checkpoints.restore_variables, manifest.verify
    times = []

    def pruned(path: Path, like: Any) -> Any:
        times.append(path.name)
        if len(times) == 1:
            os.replace(path, run / "gone")
        return read(path, like)

    def pruned_before(path: Path, epoch: int) -> Any:
        if not times:
            times.append("verify")
            os.replace(path, run / "gone")
        return verify(path, epoch)

    (run / "result.json").unlink()  # a run in training has none of a later epoch
    monkeypatch.setattr(checkpoints, "restore_variables", pruned)
    lines: list[str] = []
    assert trained(run, lines.append).epochs == 1 and times == ["epoch-2", "epoch-1"] and not lines
    os.replace(run / "gone", run / "checkpoints" / "epoch-2")
    times.clear()
    monkeypatch.setattr(manifest, "verify", pruned_before)
    assert trained(run, lines.append).epochs == 1 and times == ["verify", "epoch-1"] and not lines


def test_the_configuration_may_ask_for_more_epochs_and_be_elsewhere(run: Path) -> None:
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | {"epochs": 3, "data_dir": None}))
    recorded = resumption.recorded(run, pytest.fail)
    assert recorded is not None and recorded.config.epochs == 3 and recorded.data_dir is None
    rename(run, momentum=0.5)
    assert manifest.differences(record, record | {"momentum": 0.0, "epochs": 9}) == []
    assert manifest.differences(record, record | {"momentum": 0.5, "new": 1}) == ["momentum", "new"]


# Experiments


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experiments") / "rates"
    network = ConvNet(features=(2,), hidden=(4,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "use_every_core", lambda: None)
        patch.setattr(tables, "draw", lambda *_: None)  # figures are not verified
        ablate(
            {"rate 0": (network, {"dropout_rate": 0.0}), "rate 0.5": network},
            "fashion_mnist",
            data_dir=TINY,
            seeds=2,
            epochs=2,
            train_size=64,
            out=out,
        )
    return out


def _summary(text: str) -> str:
    return re.sub(r'("mean": 0\.)', r"\g<1>9", text, count=1)


def _swapped(text: str) -> str:
    header, *rows = text.splitlines()
    name, values = rows[0].split(",", 1)
    return "\n".join([header, f"{name} and more,{values}", *rows[1:], ""])


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("summary.json", _summary, "summary.json disagrees with results.csv in val_accuracy of"),
        ("summary.json", lambda text: text[:-9], "summary.json is damaged"),
        ("protocol.json", lambda text: text[:-9], "protocol.json is damaged"),
        (
            "protocol.json",
            lambda text: text.replace('"batch_size": ', '"batch_size": 1'),
            "protocol.json was changed",
        ),
        ("results.csv", _swapped, ""),
        ("results.csv", lambda text: text[:-300], ""),
        ("predictions", lambda text: text, "cannot be read"),
    ],
)
def test_experiments_are_verified(
    name: str, change: Callable[[str], str], text: str, experiment: Path, tmp_path: Path
) -> None:
    assert succeeds("verify", str(experiment)) == f"{experiment}: whole, experiment\n"
    out = shutil.copytree(experiment, tmp_path / "out")
    if name == "predictions":
        next((out / name).iterdir()).write_bytes(b"PK\x03\x04 damaged")
    else:
        _edit(name, change)(out)
    ended = main("verify", str(experiment), str(out))
    assert ended.code == 1 and ended.err == "cnnjax: error: 1 of 2 directories are not whole\n"
    assert f"{experiment}: whole" in ended.out and text in ended.out


MEMBER = "predictions/rate 0, seed 0.npz"


def _empty(out: Path) -> None:
    (out / "results.csv").write_bytes(b"")


def _without_row(place: str) -> Callable[[Path], None]:
    return _edit("results.csv", lambda text: re.sub(f"^{place},.*\n", "", text, flags=re.MULTILINE))


def _only_predictions(out: Path) -> None:
    for name in ("results.csv", "checksums.csv", "environments.json"):
        (out / name).unlink()


def _of_an_earlier_version(out: Path) -> None:
    _without_row("rate 0,0,1")(out)
    for name in ("checksums.csv", "environments.json"):
        (out / name).unlink()


COMPUTED_AGAIN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (_empty, "of rate 0, seed 0, epoch 1 and 7 more"),
    "deleted": (_remove("results.csv"), "of rate 0, seed 0, epoch 1 and 7 more"),
    "header": (
        _edit("results.csv", lambda text: text.split("\n")[0]),
        "of rate 0, seed 0, epoch 1 and 7 more",
    ),
    "last row": (_without_row("rate 0.5,1,2"), "of rate 0.5, seed 1, epoch 2;"),
    "a row between": (_without_row("rate 0,0,1"), "of rate 0, seed 0, epoch 1;"),
    "a row between, of an earlier version": (_of_an_earlier_version, "of rate 0, seed 0, epoch 1;"),
    "predictions": (_only_predictions, "of rate 0, seed 0, epoch 2 and 3 more"),
}


@pytest.mark.parametrize(("damage", "text"), COMPUTED_AGAIN.values(), ids=list(COMPUTED_AGAIN))
def test_missing_rows_are_found_and_computed_again(
    damage: Callable[[Path], None], text: str, experiment: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(experiment, tmp_path / "out")
    (out / "summary.json").unlink()
    damage(out)
    ended = main("verify", str(out))
    assert f"{out}: results.csv lacks the row {text}" in ended.out, ended
    assert ended.out.endswith("; the same experiment, run again, mends it\n") and ended.out.count("\n") == 1
    assert _store(out).lacks(("rate 0", 0), EPOCHS) or _store(out).lacks(("rate 0.5", 1), EPOCHS)


def _copied_prediction(out: Path) -> None:
    shutil.copy(out / "predictions/rate 0.5, seed 0.npz", out / MEMBER)


def _of_two_shapes(out: Path) -> None:
    np.savez(out / MEMBER, labels=np.zeros(3, np.uint8), probability=np.zeros(2, np.float32))


def _of_other_images(out: Path) -> None:
    np.savez(out / MEMBER, labels=np.zeros(3, np.uint8), probability=np.zeros(3, np.float32))


def _store(out: Path) -> Store:
    return Store(out, json.loads((out / "protocol.json").read_text()))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_remove(MEMBER), "is missing"),
        (_cut(MEMBER), "cannot be read"),
        (_copied_prediction, "cannot be read (it is of rate 0.5, seed 0)"),
        (_of_two_shapes, "cannot be read (its arrays have different shapes)"),
        (_of_other_images, None),
    ],
)
def test_predictions_that_are_not_those_of_all_seeds_are_found_and_left_out(
    damage: Callable[[Path], None], text: str | None, experiment: Path, tmp_path: Path
) -> None:
    arms, seeds = ("rate 0", "rate 0.5"), range(2)
    assert list(_store(experiment).results(arms, seeds, EPOCHS).predictions) == [*arms]
    out = shutil.copytree(experiment, tmp_path / "out")
    damage(out)
    assert list(_store(out).results(arms, seeds, EPOCHS).predictions) == ["rate 0.5"]
    if text is not None:
        ended = main("verify", str(out))
        assert ended.out.startswith(f"{out}: {MEMBER} {text}")
        assert ended.out.endswith("; the same experiment, run again, mends it\n")
    assert _store(out).lacks(("rate 0", 0), EPOCHS) == (text is not None)


def test_predictions_of_earlier_versions_do_not_say_whose_they_are(experiment: Path, tmp_path: Path) -> None:
    out = shutil.copytree(experiment, tmp_path / "out")
    with np.load(experiment / MEMBER) as file:
        np.savez(out / MEMBER, labels=file["labels"], probability=file["probability"])
    assert succeeds("verify", str(out)) == f"{out}: whole, experiment\n"


def test_a_directory_without_its_protocol_or_checksums_is_not_whole(experiment: Path, tmp_path: Path) -> None:
    for name in ("protocol.json", "checksums.csv"):
        out = shutil.copytree(experiment, tmp_path / name)
        (out / name).unlink()
        assert f"{name} is missing" in main("verify", str(out)).out
    (tmp_path / "protocol.json" / "results.csv").unlink()
    assert "protocol.json is missing" in main("verify", str(tmp_path / "protocol.json")).out


def test_a_table_of_the_rows_of_all_experiments_inside_is_whole(experiment: Path, tmp_path: Path) -> None:
    out = shutil.copytree(experiment, tmp_path / "rates")
    shutil.copy(out / "results.csv", tmp_path)
    assert succeeds("verify", str(tmp_path)) == f"{tmp_path}: whole, experiment\n"
    (out / "results.csv").unlink()
    assert f"{tmp_path}: rates/results.csv lacks the row of" in main("verify", str(tmp_path)).out
