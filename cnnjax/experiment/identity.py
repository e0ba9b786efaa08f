"""What an experiment on disk is: texts by which a directory recognises its protocol and its arms.

The texts are an on-disk format: change them, and existing directories no longer resume.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import flax.linen as nn

from cnnjax.config import without_defaults
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError
from cnnjax.experiment.protocol import Arm, Protocol, Splits
from cnnjax.models import ConvNet

PIECES = ("loss", "preprocess", "augment")
"""Functions of an arm that its text names where they are its own."""


def identity(arms: Sequence[Arm], protocol: Protocol, splits: Splits) -> dict[str, Any]:
    """Return the settings that all rows of a directory must share; arms and seeds may be added later."""
    shared = {name: value for name, value in asdict(protocol).items() if name != "seeds"}
    identities = {f"arm {arm.name}": arm_identity(arm) for arm in arms}
    return {**without_defaults(shared), "data": splits.sha256, "mask_scheme": MASK_SCHEME, **identities}


def arm_identity(arm: Arm) -> str:
    """Describe an arm by its values.

    Raises:
        ArgumentError: a value has no text that is the same in every process.
    """
    values = ", ".join(f"{name}={value!r}" for name, value in without_defaults(arm.hparams._asdict()).items())
    hparams = f"{type(arm.hparams).__name__}({values})"
    optimizer = describe(arm.optimizer) if callable(arm.optimizer) else arm.optimizer
    model = _network(arm.model) if type(arm.model) is ConvNet else describe(arm.model)
    own = (f"{name}={describe(piece)}" for name in PIECES if (piece := getattr(arm, name)) is not None)
    return " ".join(filter(None, (model, hparams, optimizer, *own)))


def describe(value: Any) -> str:
    """Describe a value by qualified names, its own values, and a hash of the source of functions and classes.

    Raises:
        ArgumentError: it has no text that is the same in every process.
    """
    if isinstance(value, nn.Module):
        own = [field.name for field in fields(value) if field.name not in ("parent", "name")]
        inside = ", ".join(f"{name}={describe(getattr(value, name))}" for name in own)
        return f"{describe(type(value))}({inside})"
    if isinstance(value, partial):
        return f"partial({describe((value.func, *value.args))}, {describe(value.keywords)})"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(describe, value))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {describe(of)}' for name, of in value.items())}}}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}{_source_hash(value)}"
    text = repr(value)
    if " at 0x" in text:
        raise ArgumentError(f"{text} cannot be recognised in another process; use a named function or class")
    return text


def _source_hash(value: Any) -> str:
    """Return " #" and 12 digits of the SHA-256 of the source; nothing for what is written in C."""
    try:
        source = inspect.getsource(inspect.unwrap(value))
    except (OSError, TypeError):
        return ""
    return f" #{hashlib.sha256(source.encode()).hexdigest()[:12]}"


def _network(model: ConvNet) -> str:
    """Describe a `ConvNet` as directories always have; `dtype` appears only if it is not float32."""
    lines = ["# attributes"]
    for field in fields(model):
        if field.name not in ("parent", "name", "dtype"):
            value = getattr(model, field.name)
            lines.append(f"{field.name} = {getattr(value, '__name__', None) or repr(value)}")
    text = "".join(f"    {line}\n" for line in lines)
    dtype = "" if model.dtype == "float32" else f" {model.dtype}"
    return f"{type(model).__name__}(\n{text}){dtype}"
