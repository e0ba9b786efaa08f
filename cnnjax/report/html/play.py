"""The interactive sections of a report: the networks and images that the scripts of the page work with."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.report.html.encoding import encoded
from cnnjax.report.html.network import exported
from cnnjax.report.html.subjects import CLASSES, Run
from cnnjax.report.html.words import DATASETS

NOUNS = {"mnist": "digit", "fashion_mnist": "garment", "kmnist": "character"}


def data(run: Run) -> dict[str, Any]:
    """Return what page.js needs: the network, an example of each class, and JAX's logits for it."""
    examples = np.unique(run.test.labels, return_index=True)[1]
    images = jnp.asarray(run.test.images[examples], jnp.float32) / 255
    # The page computes in float32, whatever the run computed in.
    apply: Any = jax.jit(run.model.clone(dtype="float32").apply)
    return {
        "name": run.name,
        "dataset": DATASETS[run.config.dataset],
        "rate": run.config.dropout_rate,
        "classes": CLASSES[run.config.dataset],
        **exported(run.model, run.params, run.test.images.shape[1:]),
        "examples": [
            {"label": int(run.test.labels[i]), "pixels": encoded(run.test.images[i])} for i in examples
        ],
        "logits": apply({"params": run.params}, images).tolist(),
    }


def heading(runs: Sequence[Run]) -> str:
    """Return the heading of the drawing pad."""
    nouns = {NOUNS[run.config.dataset] for run in runs}
    return f"Draw a {nouns.pop()}" if len(nouns) == 1 else "Draw something"
