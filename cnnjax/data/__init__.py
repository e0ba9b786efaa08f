"""Data sets as arrays in memory, from a name, from files, or from arrays of one's own."""

from cnnjax.data.arrays import digest, from_arrays, require_batch, require_dataset
from cnnjax.data.dataset import DIGITS, Dataset, Loaded
from cnnjax.data.loading import NAMES, cache_path, identity, is_identity, load
from cnnjax.data.splits import split, subset, training_split

__all__ = [
    "DIGITS",
    "NAMES",
    "Dataset",
    "Loaded",
    "cache_path",
    "digest",
    "from_arrays",
    "identity",
    "is_identity",
    "load",
    "require_batch",
    "require_dataset",
    "split",
    "subset",
    "training_split",
]
