"""For scripts and notebooks: train a network or run an ablation with one call."""

from cnnjax.api.fit import Run, fit, load

__all__ = ["Run", "fit", "load"]
