"""Data sets as arrays in memory, from a name or from files."""

from cnnjax.data.idx import Dataset
from cnnjax.data.loading import NAMES, Loaded, cache_path, load
from cnnjax.data.splits import split, training_split

__all__ = ["NAMES", "Dataset", "Loaded", "cache_path", "load", "split", "training_split"]
