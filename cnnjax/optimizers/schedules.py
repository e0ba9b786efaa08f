"""Schedules of the learning rate over a whole run: its factor at each step."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
import optax

from cnnjax.config import SCHEDULE_NAMES
from cnnjax.optimizers.keras import OPTIMIZERS, MakeOptimizer


def constant(total_steps: int) -> optax.Schedule:
    """1 throughout."""
    del total_steps
    return optax.constant_schedule(1.0)


def cosine(total_steps: int) -> optax.Schedule:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter 2017)."""
    falling = optax.cosine_decay_schedule(1.0, total_steps)
    return lambda step: falling(jnp.float32(step))


def one_cycle(total_steps: int) -> optax.Schedule:
    """From 1/25 to 1 over 30% of the steps, then to 1/250,000, each along half a cosine (Smith 2017).

    These are the values of `optax.cosine_onecycle_schedule`, which fails under strict dtype promotion.
    """
    peak = int(0.3 * total_steps)
    rising = optax.cosine_decay_schedule(1 / 25, max(1, peak), alpha=25.0)
    falling = optax.cosine_decay_schedule(1.0, total_steps - peak, alpha=1 / 250_000)
    both = optax.join_schedules([rising, falling], [peak])
    return lambda step: both(jnp.float32(step))


SCHEDULES: Mapping[str, Callable[[int], optax.Schedule]] = MappingProxyType(
    dict(zip(SCHEDULE_NAMES, (constant, cosine, one_cycle), strict=True))
)
"""From the steps of a whole run to the factor of the learning rate at each step."""


def make_optimizer(optimizer: str | MakeOptimizer, schedule: str, total_steps: int) -> MakeOptimizer:
    """Combine an optimizer and a schedule, which scales every step, weight decay included.

    Args:
        optimizer: a key of `OPTIMIZERS`, or a function whose steps are proportional to the learning rate.
        schedule: a key of `SCHEDULES`.
        total_steps: epochs times steps per epoch. A run with another number is another run from its first
            step on, unless the schedule is constant.
    """
    make = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    if schedule == "constant":
        return make
    factor = optax.scale_by_schedule(SCHEDULES[schedule](total_steps))
    return lambda hparams: optax.chain(make(hparams), factor)
