"""Optimizers by Keras's names and formulas, and schedules of their learning rate."""

from cnnjax.optimizers.keras import OPTIMIZERS, adamw, keras_adam, rmsprop, sgd
from cnnjax.optimizers.schedules import SCHEDULES, make_optimizer

__all__ = ["OPTIMIZERS", "SCHEDULES", "adamw", "keras_adam", "make_optimizer", "rmsprop", "sgd"]
