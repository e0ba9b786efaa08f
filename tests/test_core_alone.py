"""The core trains with JAX, Flax, optax and NumPy alone, as on a machine that has nothing else."""

import subprocess
import sys
from pathlib import Path

from helpers import CORE_ALONE

ROOT = Path(__file__).parents[1]
CODE = """
from functools import partial
import jax
import jax.numpy as jnp
import cnnjax.experiment, cnnjax.population, cnnjax.stats
from cnnjax.config import HParams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.task import Task
from cnnjax.train import Arrays, train_run

data = Arrays(jnp.zeros((4, 4, 4, 1), jnp.uint8), jnp.zeros(4, jnp.int32))
task = Task(ConvNet(features=(1,), hidden=(2,)), keras_adam)
run = jax.jit(partial(train_run, task, epochs=1, batch_size=2))
_, _, sums = run(jax.random.key(0), HParams(), data, data)
print(sums.examples)
"""


def test_training_starts_without_the_libraries_of_statistics() -> None:
    """Every command would wait for them."""
    code = "import sys, cnnjax.cli, cnnjax.runs.training; print('scipy.stats' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout == "False\n", ended.stderr


def test_the_core_needs_nothing_else() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CORE_ALONE + CODE], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.stdout == "[4.]\n", ended.stderr
