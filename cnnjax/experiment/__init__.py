"""Ablations: arms that differ in one setting, paired by seed."""

from cnnjax.experiment.engine import OnNan, Report, run
from cnnjax.experiment.merging import merge
from cnnjax.experiment.protocol import Arm, Protocol, Splits, prepare, use_every_core
from cnnjax.experiment.results import Results, Store
from cnnjax.experiment.sizing import power, read_pilot
from cnnjax.stats.plan import Plan

__all__ = [
    "Arm",
    "OnNan",
    "Plan",
    "Protocol",
    "Report",
    "Results",
    "Splits",
    "Store",
    "merge",
    "power",
    "prepare",
    "read_pilot",
    "run",
    "use_every_core",
]
