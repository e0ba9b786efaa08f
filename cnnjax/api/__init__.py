"""For scripts and notebooks: train a network or run an ablation with one call."""

from cnnjax.api.ablation import ablate
from cnnjax.api.fitting import Run, fit, load

__all__ = ["Run", "ablate", "fit", "load"]
