"""JSON records: their checksum, and what config.json and protocol.json of earlier versions lack."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

CHECKSUM = "sha256"
"""Key of a record: see `checksum`. Those of earlier versions may lack it."""
LATER: Mapping[str, Any] = MappingProxyType(
    {
        "schedule": "constant",
        "weight_decay": 0.0,
        "momentum": 0.0,
        "init_seed": None,
        "order_seed": None,
        "mask_seed": None,
        "stop_early": 0,
        "custom": {},
    }
)
"""Entries that the config.json or protocol.json of an earlier version lacks, and the values it means."""


def without_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a record without those of `LATER` that have their default."""
    return {name: value for name, value in record.items() if name not in LATER or value != LATER[name]}


def checksum(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's entries, but for its own and the seconds, which no run repeats."""
    content = {name: value for name, value in record.items() if name not in (CHECKSUM, "seconds")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
