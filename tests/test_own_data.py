"""Data sets of one's own: arrays, npz, CSV, image folders and TFDS, from the file to the exported network."""

import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import contents, fails, succeeds
from PIL import Image

from cnnjax import data
from cnnjax.cli.predict import Predict
from cnnjax.data import tfds_store
from cnnjax.deploy import export
from cnnjax.deploy.predict import probabilities, trained
from cnnjax.errors import ArgumentError, UserError
from cnnjax.report import tables

SHAPE, CLASSES = (12, 10, 3), 7
NAMES = ("x_train", "y_train", "x_test", "y_test")


def some(n: int, shape: tuple[int, ...] = SHAPE, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Images as bright as their class, which comes in turn."""
    labels = np.arange(n) % classes
    noise = np.random.default_rng(n).integers(0, 20, (n, *shape))
    bright = labels.reshape(-1, *[1] * len(shape)) * (200 // classes)
    return (bright + noise).astype(np.uint8), labels


def arrays(train: int = 140, test: int = 35) -> dict[str, Any]:
    return dict(zip(NAMES, (*some(train), *some(test)), strict=True))


def save(path: Path, named: dict[str, Any]) -> None:
    np.savez(path, **named)


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("npz") / "shades.npz"
    save(path, arrays())
    return path


@pytest.fixture(scope="module")
def run(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    succeeds("train", "--dataset", str(npz), "--epochs", "2", "--batch-size", "16", "--out", str(out))
    return out


def assert_same(loaded: data.Loaded, given: dict[str, np.ndarray]) -> None:
    for array, name in zip((*loaded.train[:2], *loaded.test[:2]), NAMES, strict=True):
        np.testing.assert_array_equal(array, given[name])
    assert loaded.train.images.dtype == np.uint8 and loaded.train.labels.dtype == np.int32
    assert (loaded.image_shape, loaded.classes) == (SHAPE, CLASSES)


# From the file to the exported network


@pytest.mark.slow
def test_every_command_follows_the_shape_and_the_classes(run: Path, npz: Path, tmp_path: Path) -> None:
    printed = succeeds("data", "--dataset", str(npz))
    assert "12 x 10 x 3" in printed and re.search(r"┃ +0 ┃.*┃ +6 ┃\n", printed) and "source: npz" in printed
    printed = succeeds("evaluate", str(run))
    assert "test images of shades.npz" in printed and "n = 35" in printed
    printed = succeeds("predict", str(run), "--split", "test", "--first", "7", "--mc", "3", "--mistakes")
    assert "of 7 right" in printed and (run / "confused.png").exists()
    succeeds("export", str(run), "--out", str(tmp_path / "file"))
    network, test = trained(run, announce=lambda _: None), data.load(str(npz)).test
    if all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        assert export.export(network, "onnx").difference <= export.TOLERANCE
    logits = export.run_stablehlo((tmp_path / "file").read_bytes(), test.images.astype(np.float32) / 255)
    assert logits.shape == (35, CLASSES)
    shares = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(shares, probabilities(network, test), atol=1e-5)


def test_a_picture_of_an_image_is_predicted_as_that_image(
    run: Path, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnjax.deploy import pictures

    monkeypatch.chdir(tmp_path)  # a table folds long paths
    image = data.load(str(npz)).test.images[3]
    Image.fromarray(image).save(tmp_path / "three.png")
    np.testing.assert_array_equal(pictures.resized(pictures.read(tmp_path / "three.png"), SHAPE), image)
    Image.fromarray(np.kron(image, np.ones((5, 5, 1), np.uint8))).save(tmp_path / "large.png")
    printed = succeeds("predict", str(run), "three.png", "large.png")
    assert printed.count("three.png") == 1


def test_a_run_is_resumed_with_its_own_data_alone(npz: Path, tmp_path: Path, monkeypatch: Any) -> None:
    content = npz.read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("own.npz").write_bytes(content)
    train = ["train", "--dataset", "own.npz", "--batch-size", "16", "--out", "run"]
    succeeds(*train, "--epochs", "1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "n = 35" in succeeds("evaluate", "../run")
    succeeds("train", "--resume", "--epochs", "2", "--out", "../run")
    save(tmp_path / "own.npz", arrays() | {"y_train": (arrays()["y_train"] + 1) % CLASSES})
    assert "the data differ" in fails(1, "train", "--resume", "--epochs", "3", "--out", "../run")
    save(tmp_path / "own.npz", dict(zip(NAMES, (*some(70, (9, 9)), *some(70, (9, 9))), strict=True)))
    line = fails(1, "evaluate", "../run")
    assert "12 x 10 x 3" in line and "9 x 9 x 1" in line
    assert "9 x 9 x 1" in fails(1, "predict", "../run")


def test_classes_with_names_are_shown_with_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"[kind] {i}" for i in range(CLASSES))
    network = trained(run, announce=lambda _: None)._replace(class_names=names)
    test = data.from_arrays(*arrays().values(), classes=names).test
    predicted = Predict(run)._print_table(network, list(map(str, range(35))), test, "", labels=True)
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    shares = probabilities(network, test)
    for cells, share, label, most in zip(lines, shares, test.labels, predicted, strict=True):
        shown = [names[label], names[most], f"{share.max():.2f}", *(f"{value:.2f}" for value in share)]
        assert [cell.strip() for cell in cells[1:]] == shown
    with pytest.raises(UserError, match=r"classes \[kind\] 0, .*and the data have the classes 0, 1, 2"):
        probabilities(network, test._replace(class_names=data.DIGITS))


@pytest.mark.slow
def test_an_experiment_needs_networks_with_the_classes_of_the_data(npz: Path, tmp_path: Path) -> None:
    from cnnjax import experiment
    from cnnjax.config import HParams
    from cnnjax.models import ConvNet

    protocol = experiment.Protocol(epochs=1, seeds=1, batch_size=16, dataset=str(npz))
    splits = experiment.prepare(protocol, announce=lambda _: None)
    with pytest.raises(ArgumentError, match="classes=7"):
        experiment.run([experiment.Arm("ten", ConvNet(), HParams())], protocol, splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    arms = [experiment.Arm("seven", ConvNet(classes=CLASSES), HParams())]
    results = experiment.run(arms, protocol, splits, tmp_path / "out")
    assert np.isfinite(results.final("val_loss")).all()


def test_many_classes_are_named_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"kind {i}" for i in range(CLASSES)]
    loaded = data.from_arrays(*arrays().values(), classes=names)
    wrong = tables.Predictions(np.roll(loaded.test.labels, 1)[None], np.ones((1, 35)))
    summary = tables.print_confusions({"arm": wrong}, loaded.test)
    assert "kind 0 and kind 1" in summary["confused"]["arm"] and "kind" in capsys.readouterr().out
    assert tables.confusion_figure({"arm": wrong}, loaded.test, "")["confused.png"]() is not None


# Formats


@pytest.mark.parametrize("names", [NAMES, ("train_images", "train_labels", "test_images", "test_labels")])
def test_npz_has_the_names_of_keras_or_ours(names: tuple[str, ...], tmp_path: Path) -> None:
    given = arrays()
    save(tmp_path / "a.npz", dict(zip(names, given.values(), strict=True)))
    assert_same(data.load(str(tmp_path / "a.npz")), given)


def test_grey_images_and_columns_of_labels_are_accepted() -> None:
    images, labels = some(20, (6, 5))
    loaded = data.from_arrays(images, labels[:, None], images, labels[:, None], classes=9)
    assert (loaded.image_shape, loaded.classes) == ((6, 5, 1), 9)
    assert loaded.class_names == tuple("012345678")


def test_without_test_images_a_sixth_of_each_class_is_set_apart() -> None:
    images, labels = some(12 * CLASSES)
    one, other = (data.from_arrays(images, labels) for _ in range(2))
    assert np.bincount(one.train.labels).tolist() == [10] * CLASSES
    assert np.bincount(one.test.labels).tolist() == [2] * CLASSES
    assert one.sha256 == other.sha256


def test_checksums_are_those_of_the_content() -> None:
    given: list[Any] = list(arrays().values())
    first = data.from_arrays(*given).sha256
    assert first == data.from_arrays(*[array.copy() for array in given]).sha256
    given[2] = given[2].copy()
    given[2][0, 0, 0, 0] ^= 1
    changed = data.from_arrays(*given).sha256
    assert {name for name in first if first[name] != changed[name]} == {"test_images"}


def write_csv(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    table = np.column_stack([labels, images.reshape(len(images), -1)])
    head = ",".join(["label", *(f"pixel{i}" for i in range(table.shape[1] - 1))])
    np.savetxt(path, table, "%d", delimiter=",", header=head, comments="")


def test_csv_as_kaggle_has_it(tmp_path: Path) -> None:
    images, labels = some(36, (6, 6), 3)
    write_csv(tmp_path / "train.csv", images, labels)
    loaded = data.load(str(tmp_path / "train.csv"))
    assert (len(loaded.train.labels), len(loaded.test.labels)) == (30, 6)
    (tmp_path / "test.csv").write_text("pixel0\n0\n")  # as Kaggle's, without labels
    assert data.load(str(tmp_path / "train.csv")).sha256 == loaded.sha256
    write_csv(tmp_path / "test.csv", *some(9, (6, 6), 3))
    loaded = data.load(str(tmp_path / "train.csv"))
    np.testing.assert_array_equal(loaded.train.images[..., 0], images)
    np.testing.assert_array_equal(loaded.test.labels, some(9, (6, 6), 3)[1])


def write_folders(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03}.png")


def test_image_folders_with_and_without_test(tmp_path: Path) -> None:
    given = arrays()
    order = [np.argsort(given[name], kind="stable") for name in ("y_train", "y_test")]
    write_folders(tmp_path / "train", given["x_train"], given["y_train"])
    (tmp_path / "train" / "class 0" / "notes.txt").write_text("not an image")
    write_folders(tmp_path / "test", given["x_test"], given["y_test"])
    loaded = data.load(str(tmp_path))
    sorted_by = dict[str, Any](zip(NAMES, (order[0], order[0], order[1], order[1]), strict=True))
    assert_same(loaded, {name: given[name][sorted_by[name]] for name in NAMES})
    assert loaded.class_names == tuple(f"class {i}" for i in range(CLASSES))
    alone = data.load(str(tmp_path / "train"))
    assert len(alone.test.labels) == round(140 / 6) and alone.classes == CLASSES
    write_folders(tmp_path / "test", *some(1, classes=1))
    (tmp_path / "test" / "class 0").rename(tmp_path / "test" / "other")
    with pytest.raises(UserError, match="no class of that name"):
        data.load(str(tmp_path))


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path: Path) -> None:
    write_folders(tmp_path, *some(12, (5, 4), 2))
    assert data.load(str(tmp_path)).image_shape == (5, 4, 1)
    Image.new("RGB", (4, 5), "red").save(tmp_path / "class 1" / "red.png")
    assert data.load(str(tmp_path)).image_shape == (5, 4, 3)
    Image.new("RGB", (4, 6)).save(tmp_path / "class 1" / "tall.png")
    with pytest.raises(UserError, match=r"tall.png is 4 x 6 .* one size"):
        data.load(str(tmp_path))


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, np.ndarray]]:
    """Let TFDS prepare a tiny set of three classes, of which the first has no images."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def prepared(called: str, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
        with tfds_store.quiet():
            import tensorflow_datasets as tfds
            from tensorflow_datasets.core import registered

            with registered.skip_registration():

                class Tiny(tfds.core.GeneratorBasedBuilder):
                    name = called
                    VERSION = tfds.core.Version("1.0.0")

                    def _info(self) -> Any:
                        features = {
                            "image": tfds.features.Image(shape=shape),
                            "label": tfds.features.ClassLabel(names=["none", "cat", "dog"]),
                        }
                        return tfds.core.DatasetInfo(
                            builder=self, features=tfds.features.FeaturesDict(features)
                        )

                    def _split_generators(self, dl_manager: Any) -> Any:
                        return {"train": self._generate_examples(14), "test": self._generate_examples(6)}

                    def _generate_examples(self, n: int) -> Any:
                        for i, (image, label) in enumerate(zip(*some(n, shape, 2), strict=True)):
                            file = io.BytesIO()
                            Image.fromarray(image if shape[2] == 3 else image[..., 0]).save(file, "PNG")
                            yield i, {"image": io.BytesIO(file.getvalue()), "label": int(label) + 1}

            builder: Any = Tiny(data_dir=str(tmp_path), file_format="array_record")
            builder.download_and_prepare(download_dir=str(tmp_path / "downloads"))
        return dict(zip(NAMES, (*some(14, shape, 2), *some(6, shape, 2)), strict=True))

    return prepared


def unordered(images: np.ndarray) -> list[bytes]:
    return sorted(np.ascontiguousarray(image).tobytes() for image in images)


@pytest.mark.parametrize(("name", "shape"), [("pets", (8, 6, 3)), ("emnist", (8, 8, 1))])
def test_what_tfds_has_prepared(name: str, shape: tuple[int, int, int], prepare: Any) -> None:
    given = prepare(name, shape)
    loaded = data.load(f"tfds:{name}")
    assert (loaded.class_names, loaded.image_shape) == (("cat", "dog"), shape)
    upright = given["x_train"].swapaxes(1, 2) if name == "emnist" else given["x_train"]
    assert unordered(loaded.train.images) == unordered(upright)
    # The images are as bright as their class.
    assert ((loaded.test.images.mean(axis=(1, 2, 3)) > 50) == (loaded.test.labels == 1)).all()


# What is refused, in one line and before anything is compiled


def bad_arrays() -> dict[str, tuple[dict[str, Any], str]]:
    good = arrays()
    images, labels = good["x_train"], good["y_train"]
    return {
        "floats": ({"x_train": images / np.float32(255)}, "astype"),
        "other integers": ({"x_train": images.astype(np.int64)}, "uint8"),
        "flat images": ({"x_train": images.reshape(len(images), -1)}, "height"),
        "channels first": ({"x_train": np.zeros((140, 3, 12, 10), np.uint8)}, "transpose"),
        "other size": ({"x_test": good["x_test"][:, :-1]}, "same height"),
        "one-hot": ({"y_train": np.eye(CLASSES, dtype=int)[labels]}, "argmax"),
        "float labels": ({"y_train": labels.astype(np.float64)}, "integer"),
        "negative labels": ({"y_train": labels - 1}, "from 0"),
        "too few labels": ({"y_train": labels[:-1]}, "139"),
        "no images": ({"x_train": images[:0], "y_train": labels[:0]}, "at least one image"),
        "one class": ({"y_train": labels * 0, "y_test": good["y_test"] * 0}, "2 to"),
        "text": ({"y_train": labels.astype(str)}, "integer"),
    }


@pytest.mark.parametrize("what", bad_arrays())
def test_a_bad_array_is_one_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, word = bad_arrays()[what]
    path = tmp_path / "bad.npz"
    save(path, arrays() | change)
    monkeypatch.setattr(jax, "jit", lambda *_, **__: pytest.fail("it compiles"))
    line = fails(1, "train", "--dataset", str(path), "--out", str(tmp_path / "run"))
    assert word in line and "bad.npz" in line, line
    assert contents(tmp_path).keys() == {"bad.npz"}


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(UserError, match="with 5 classes they must be 0 to 4"):
        data.from_arrays(*arrays().values(), classes=5)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.npz", b"text", "not an npz"),
        ("a.npz", b"PK\3\4", "not an npz"),
        ("a.csv", b"1,2,3\n", "first line"),
        ("a.csv", b"label,pixel0,pixel1\n1,2,3\n", "square"),
        ("a.csv", b"label,pixel0\n", "no rows"),
        ("a.csv", b"label,pixel0\n1,x\n", "whole numbers"),
        ("a.csv", b"label,pixel0\n1,256\n", "0 to 255"),
        ("a.txt", b"", ".npz or .csv"),
        ("emnist-letters-train-images-idx3-ubyte", b"", "letters labelled from 1"),
    ],
)
def test_a_bad_file_is_one_line(name: str, content: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    asked = tmp_path if name.startswith("emnist") else tmp_path / name
    assert word in fails(1, "data", "--dataset", str(asked))


def test_a_pickle_in_an_npz_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.array([{}], object), y_train=np.zeros(1, int))
    assert "plain arrays" in fails(1, "data", "--dataset", str(tmp_path / "a.npz"))


def test_wrong_names_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert "use one of mnist" in fails(2, "data", "--dataset", "cifar")
    assert "no such file" in fails(1, "data", "--dataset", "nowhere.npz")
    assert "download_and_prepare" in fails(1, "data", "--dataset", "tfds:cifar10")
    assert "names no data set" in fails(2, "data", "--dataset", "tfds:../x")
    assert "--data-dir" in fails(2, "data", "--dataset", "x.npz", "--data-dir", str(tmp_path))
    (tmp_path / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"")
    assert "transposed" in fails(1, "data", "--data-dir", str(tmp_path))
