"""`export` writes a file that computes the network's logits for any batch size, or nothing."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import contents, fails, succeeds, train

from cnnjax.deploy import export, export_onnx
from cnnjax.deploy.predict import Trained, trained
from cnnjax.errors import UserError
from cnnjax.models import MODELS
from cnnjax.runs import building
from cnnjax.runs.train_config import TrainConfig
from cnnjax.state import evaluation_state

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None,
    reason="the extra cnnjax[onnx] is not installed",
)
IMAGES = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    succeeds(*train(out, "--epochs", "1", "--model", "lenet-swish", "--batch-size", "8"))
    return out


def fast_logits(network: Trained, images: np.ndarray) -> np.ndarray:
    """The logits as training and evaluation compute them."""
    return np.asarray(jax.jit(network.task.model.apply)({"params": network.params}, images))


def untrained(model: str, pixel_scale: float) -> Trained:
    config = TrainConfig(model=model, pixel_scale=pixel_scale)
    task = building.task(config)
    params = jax.jit(task.model.init)(jax.random.key(1), jnp.zeros((1, 28, 28, 1)))["params"]
    return Trained(config, None, task, config.hparams, evaluation_state(params), [], 1)


NETWORKS = pytest.mark.parametrize(("model", "pixel_scale"), list(zip(MODELS, (1.0, 255.0), strict=True)))


@NETWORKS
def test_stablehlo_gives_the_logits_of_any_number_of_images(model: str, pixel_scale: float) -> None:
    network = untrained(model, pixel_scale)
    exported = export.export(network, "stablehlo")
    assert 0 <= exported.difference <= export.TOLERANCE
    again = jax.export.deserialize(bytearray(exported.content))
    assert set(again.platforms) == {"cpu", "cuda", "tpu"}
    assert b".py" not in exported.content, "it contains paths of source files"
    for count in (1, 2, 5):
        expected = fast_logits(network, IMAGES[:count])
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(again.call(IMAGES[:count]), expected, atol=1e-5 * scale)


def test_a_bfloat16_network_is_exported_in_float32() -> None:
    network = untrained("lenet-swish", 1.0)
    halved = network._replace(config=replace(network.config, compute_dtype="bfloat16"))
    logits = export.run_stablehlo(export.export(halved, "stablehlo").content, IMAGES)
    np.testing.assert_allclose(logits, fast_logits(network, IMAGES), atol=1e-5)


@pytest.mark.slow
def test_the_file_needs_no_cnnjax(run: Path, tmp_path: Path) -> None:
    network = trained(run, announce=lambda _: None)
    before = contents(run)
    printed = succeeds("export", str(run))
    assert str(run / "model.stablehlo") in printed and "its logits" in printed
    assert contents(run).keys() - before.keys() == {"model.stablehlo", "made.json"}
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, numpy, jax; content = bytearray(open(sys.argv[1], 'rb').read())\n"
        "images = numpy.load(sys.argv[2] + '/images.npy')\n"
        "numpy.save(sys.argv[2] + '/logits.npy', jax.export.deserialize(content).call(images))\n"
        "assert 'cnnjax' not in sys.modules and 'flax' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(run / "model.stablehlo"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    expected = fast_logits(network, IMAGES)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


def test_exporting_twice_gives_the_same_file(run: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        succeeds("export", str(run), "--out", str(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_file_with_other_logits_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export.FORMATS["stablehlo"]
    for wrong in (lambda c, x: made.run(c, x) + 1e-3, lambda c, x: made.run(c, x) * np.nan):
        monkeypatch.setattr(export, "FORMATS", {"stablehlo": made._replace(run=wrong)})
        assert "not written" in fails(1, "export", str(run), "--out", str(tmp_path / "file"))
    assert not list(tmp_path.iterdir())


def test_a_failed_export_is_a_one_line_error(run: Path, tmp_path: Path) -> None:
    assert "--out" in fails(1, "export", str(run), "--out", str(tmp_path))
    assert "--out" in fails(1, "export", str(run), "--out", str(tmp_path / "no" / "file"))
    assert "format" in fails(2, "export", str(run), "--format", "pickle")
    assert "holds no run" in fails(2, "export", str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_onnx_package_is_reported(
    missing: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "onnxruntime":
        monkeypatch.setattr(export_onnx, "encode", lambda *_: b"")
    monkeypatch.setitem(sys.modules, missing, None)
    line = fails(1, "export", str(run), "--format", "onnx", "--out", str(tmp_path / "file"))
    assert "pip install 'cnnjax[onnx]'" in line
    assert not list(tmp_path.iterdir())


@needs_onnx
@NETWORKS
def test_onnxruntime_gives_the_logits_of_any_number_of_images(model: str, pixel_scale: float) -> None:
    network = untrained(model, pixel_scale)
    exported = export.export(network, "onnx")
    assert 0 <= exported.difference <= 1e-5
    for count in (1, 2, 5):
        expected = fast_logits(network, IMAGES[:count])
        logits = export_onnx.run(exported.content, IMAGES[:count])
        np.testing.assert_allclose(logits, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


@needs_onnx
@pytest.mark.parametrize("change", [{"pooling": "median"}, {"activation": jnp.tanh}])
def test_unsupported_networks_are_refused(change: dict[str, Any]) -> None:
    model = MODELS["keras-cnn"].clone(**change)
    with pytest.raises(UserError, match="only networks"):
        export_onnx.encode(model, {}, (28, 28, 1))


@needs_onnx
def test_the_command_writes_onnx(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits.onnx"
    printed = succeeds("export", str(run), "--format", "onnx", "--out", str(out))
    assert printed.count("\n") == 1 and str(out) in printed
    expected = fast_logits(trained(run, announce=lambda _: None), IMAGES)
    np.testing.assert_allclose(export_onnx.run(out.read_bytes(), IMAGES), expected, atol=1e-5)
