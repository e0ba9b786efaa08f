"""The IDX format, and data sets from --data-dir."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnnjax import data
from cnnjax import files as files_on_disk
from cnnjax.data import idx, own
from cnnjax.errors import ArgumentError, UserError

TINY = Path(__file__).parent / "data"
TRAIN_IMAGES, TRAIN_LABELS, *_ = idx.FILES


@pytest.fixture(scope="module")
def files() -> idx.Files:
    return {file: idx.read(path) for file, path in idx.find(TINY).items()}


# The IDX format


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0)))
def test_idx_round_trip(array):
    np.testing.assert_array_equal(idx.decode(idx.encode(array), array.ndim, "x"), array)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3)), st.data())
def test_every_shorter_idx_file_is_refused(array, draw):
    raw = idx.encode(array)
    length = draw.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(UserError, match="some-file"):
        idx.decode(raw[:length], 3, "some-file")


def test_pack_is_the_inverse_of_unpack(files):
    train, test = idx.unpack(files)
    assert idx.pack(train, test) == files
    assert train.images.dtype == np.uint8 and train.images.shape == (1000, 28, 28, 1)
    assert train.labels.dtype == np.int32 and test.labels.shape == (200,)


# --data-dir


@pytest.mark.parametrize("compressed", [True, False])
def test_data_dir_takes_plain_and_gzip(compressed, files, tmp_path):
    for file, raw in files.items():
        path = tmp_path / (f"{file}.gz" if compressed else file)
        path.write_bytes(gzip.compress(raw) if compressed else raw)
    loaded = data.load("fashion_mnist", tmp_path)
    assert loaded.source == "data-dir"
    assert loaded.sha256 == idx.digests(files)
    other = data.load("kmnist", TINY)
    for x, y in zip((*loaded.train[:2], *loaded.test[:2]), (*other.train[:2], *other.test[:2]), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["{file}/{file}", "{dotted}", "{dotted}.gz", "{file}/{dotted}"])
def test_the_files_may_have_the_names_of_other_copies(name: str, files: idx.Files, tmp_path: Path) -> None:
    """With a dot before "idx", and as Kaggle's archives have them, in directories of their names."""
    for file, raw in files.items():
        path = tmp_path / name.format(file=file, dotted=file.replace("-idx", ".idx"))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert data.load("kmnist", tmp_path).sha256 == idx.digests(files)
    assert data.load(str(tmp_path)).source == "idx"


def test_an_idx_file_of_other_elements_is_named_for_what_it_is(files: idx.Files, tmp_path: Path) -> None:
    """QMNIST's labels are eight numbers an image."""
    for file, raw in files.items():
        (tmp_path / file).write_bytes(raw)
    header = b"\0\0\x0c\2" + np.array([1000, 8], ">i4").tobytes()
    (tmp_path / TRAIN_LABELS).write_bytes(header + bytes(32_000))
    with pytest.raises(UserError, match=r"train-labels.*: it holds int32 of rank 2; .*FILE\.npz"):
        data.load("kmnist", tmp_path)


def test_data_dir_needs_neither_tfds_nor_jax():
    code = (
        "import sys; from pathlib import Path; from cnnjax import data;"
        f"data.load('kmnist', Path({str(TINY)!r}));"
        "print(*{'tensorflow_datasets', 'jax'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not out.stdout.strip()


def _break(name: str, directory: Path, files: idx.Files) -> str:
    """Damage one file in one way; return what the message must contain."""
    images, labels = directory / TRAIN_IMAGES, directory / TRAIN_LABELS
    raw = files[TRAIN_LABELS]
    if name == "missing":
        labels.unlink()
        return "no such file"
    if name == "magic":
        images.write_bytes(b"\0\0\x0d\3" + files[TRAIN_IMAGES][4:])
        return "not an IDX file"
    if name == "swapped":
        images.write_bytes(raw)
        return "not an IDX file"
    if name == "empty":
        images.write_bytes(b"")
        return "nothing"
    if name == "truncated":
        images.write_bytes(files[TRAIN_IMAGES][:-1])
        return "specifies 784000 bytes, 783999 follow"
    if name == "trailing":
        labels.write_bytes(raw + b"\0")
        return "specifies 1000 bytes, 1001 follow"
    if name == "count":
        labels.write_bytes(idx.encode(np.zeros(999, np.uint8)))
        return "999 labels for the 1000 images"
    if name == "size":
        images.write_bytes(idx.encode(np.zeros((1000, 27, 28), np.uint8)))
        return "28 x 28"
    if name == "label":
        labels.write_bytes(raw[:-1] + b"\x0a")
        return "the label 10"
    if name == "directory":
        labels.unlink()
        labels.mkdir()
        return "no such file"
    compressed = bytearray(gzip.compress(raw))
    if name == "gzip cut":
        del compressed[-20:]
    elif name == "gzip crc":
        compressed[-6] ^= 1
    elif name == "gzip body":
        compressed[20:40] = bytes(20)
    labels.write_bytes(compressed)
    return "broken gzip"


BREAKAGES = (
    *("missing", "magic", "swapped", "empty", "truncated", "trailing", "count", "size", "label"),
    *("directory", "gzip cut", "gzip crc", "gzip body"),
)


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_damaged_file_is_named_in_one_line(name, files, tmp_path):
    for file, raw in files.items():
        (tmp_path / file).write_bytes(raw)
    expected = _break(name, tmp_path, files)
    with pytest.raises(UserError) as caught:
        data.load("fashion_mnist", tmp_path)
    message = str(caught.value)
    assert expected in message and str(tmp_path / "train-") in message and "\n" not in message


def test_data_dir_that_is_none(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        data.load("mnist", tmp_path / "nowhere")


def test_mnist_means_the_canonical_mnist():
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: not the canonical MNIST"):
        data.load("mnist", TINY)


def test_unknown_name_lists_the_known():
    with pytest.raises(ArgumentError, match="mnist, fashion_mnist, kmnist"):
        data.load("minst")


def test_a_small_file_that_decompresses_to_a_large_one(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 1000)
    for content in (bytes(1001), gzip.compress(bytes(1001)), gzip.compress(bytes(10**8))):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(UserError, match="holds more than 1,000 bytes"):
            idx.read(tmp_path / "file")
    (tmp_path / "file").write_bytes(gzip.compress(bytes(1000)))
    assert idx.read(tmp_path / "file") == bytes(1000)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("read", [idx.read, files_on_disk.read_json, files_on_disk.read_csv, own.read])
def test_what_is_no_file_is_refused_and_not_read(kind, read, tmp_path):
    path = tmp_path / "given.npz"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=f"{path}.*file"):
        read(path)


def test_a_record_is_not_larger_than_any(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**11)  # without blocks on the disk
    with pytest.raises(UserError, match=r"config\.json is not a file"):
        files_on_disk.read_json(tmp_path / "config.json")


def test_published_files_are_refused_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file: file.encode() for file in idx.FILES}
    assert idx.verify("kmnist", files) == idx.digests(files)
    for name, sums in (("mnist", "MNIST_SHA256"), ("fashion_mnist", "FASHION_SHA256")):
        with monkeypatch.context() as patch:
            patch.setattr(idx, sums, idx.digests(files))
            assert idx.verify(name, files) == idx.digests(files)
            for other in {"mnist", "fashion_mnist", "kmnist"} - {name}:
                match = f"this is {idx.TITLES[name]}'s train-images-idx3-ubyte, not {other}"
                with pytest.raises(UserError, match=match):
                    idx.verify(other, files)
            swapped = files | {TRAIN_LABELS: files["t10k-labels-idx1-ubyte"]}
            match = f"this is {idx.TITLES[name]}'s t10k-labels.* not {name}'s train-labels"
            with pytest.raises(UserError, match=match):
                idx.verify(name, swapped)


def test_fashion_mnist_of_its_size_must_be_the_published(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file: file.encode() for file in idx.FILES}
    monkeypatch.setattr(idx, "FASHION_SHA256", idx.digests(files) | {TRAIN_IMAGES: "0" * 64})
    idx.verify("fashion_mnist", files)
    monkeypatch.setattr(idx, "PUBLISHED_SIZES", idx.sizes(files))
    with pytest.raises(UserError, match="train-images-idx3-ubyte: not the canonical Fashion-MNIST file"):
        idx.verify("fashion_mnist", files)


def test_swapped_files_and_other_sizes_are_noticed(files: idx.Files, tmp_path: Path) -> None:
    lines: list[str] = []
    data.load("kmnist", TINY, announce=lines.append)
    assert len(lines) == 1 and "1,000 and 200 images, and kmnist has 60,000 and 10,000" in lines[0]
    for file, raw in files.items():
        (tmp_path / file.replace("t10k", "T").replace("train", "t10k").replace("T", "train")).write_bytes(raw)
    with pytest.raises(UserError, match="200 training images and 1,000 test images; exchange"):
        data.load("kmnist", tmp_path)


def test_own_idx_files_have_a_name_of_their_own(files: idx.Files, tmp_path: Path) -> None:
    wide = np.zeros((6, 5, 9), np.uint8)
    for file, raw in files.items():
        (tmp_path / file).write_bytes(idx.encode(wide) if "t10k-images" in file else raw)
        if "t10k-labels" in file:
            (tmp_path / file).write_bytes(idx.encode(np.arange(6, dtype=np.uint8)))
    with pytest.raises(UserError, match=r"shape \(28, 28, 1\) and the test images \(5, 9, 1\)"):
        own.read(tmp_path)
    loaded = data.load(str(TINY))
    known = data.load("kmnist", TINY)
    assert (loaded.name, loaded.source) == ("data", "idx") and loaded.sha256 != known.sha256
    np.testing.assert_array_equal(loaded.test.images, known.test.images)
    np.testing.assert_array_equal(loaded.train.labels, known.train.labels)
