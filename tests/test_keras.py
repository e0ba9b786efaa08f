"""What Keras computes, kept in tests/reference by make_keras_reference.py."""

from collections.abc import Iterator
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config import HParams
from cnnjax.models import MODELS
from cnnjax.optimizers import OPTIMIZERS, keras_adam

Reference = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    with np.load(Path(__file__).parent / "reference" / "keras_reference.npz") as file:
        yield {name: file[name] for name in file.files}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_keras_weights_give_keras_logits(name: str, plain: bool, reference: Reference) -> None:
    params: dict[str, dict[str, np.ndarray]] = {}
    for path, value in reference.items():
        if path.startswith(f"{name}/") and path.count("/") == 2:
            _, layer, kind = path.split("/")
            params.setdefault(layer.capitalize(), {})[kind] = value
    images = reference["images"].astype(np.float32) / 255
    model = MODELS[name].clone(reference=plain)
    logits = jax.jit(model.apply)({"params": params}, images)
    chex.assert_trees_all_close(np.asarray(logits), reference[f"{name}/logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_optimizers_take_keras_steps(name: str, reference: Reference) -> None:
    """Ten steps with gradients from 1 down to 1e-8 and 0, so that the place of epsilon shows."""
    optimizer = OPTIMIZERS[name](HParams(jnp.float32(1e-3)))
    trajectory = reference[f"optimizer/{name}"]
    params = jnp.asarray(trajectory[0])
    state = optimizer.init(params)
    for gradient, expected in zip(reference["optimizer/gradients"], trajectory[1:], strict=True):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = jnp.asarray(optax.apply_updates(params, updates))
        np.testing.assert_allclose(params, expected, rtol=0, atol=1e-7)


def test_optax_adam_would_fail_the_test_above(reference: Reference) -> None:
    """The reference tells the two places of epsilon apart."""
    gradient = jnp.asarray(reference["optimizer/gradients"][0])
    ours, _ = keras_adam(HParams(jnp.float32(1e-3))).update(gradient, keras_adam(HParams()).init(gradient))
    with jax.numpy_dtype_promotion("standard"):
        theirs, _ = (optimizer := optax.adam(1e-3, eps=1e-7)).update(gradient, optimizer.init(gradient))
    assert np.max(np.abs(np.asarray(ours) - np.asarray(theirs))) > 1e-5
