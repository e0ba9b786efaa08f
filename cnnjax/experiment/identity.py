"""What an experiment on disk is: texts by which a directory recognises its protocol and its arms.

The texts are an on-disk format: change them, and existing directories no longer resume.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from cnnjax.data import Dataset, digest
from cnnjax.dropout import MASK_SCHEME
from cnnjax.experiment.protocol import Arm, Protocol, Splits
from cnnjax.files import jax_settings
from cnnjax.files.code import code_used
from cnnjax.files.identity import describe
from cnnjax.files.records import LATER, without_defaults
from cnnjax.models import ConvNet

EARLIER = {**LATER, "split_seed": 0, "train_sample": "first images"}
"""What an earlier version's protocol.json lacks; its train_* columns are of other images."""
PIECES = ("loss", "preprocess", "augment")
"""Functions of an arm that its text names where they are its own."""


def identity(
    arms: Sequence[Arm], protocol: Protocol, splits: Splits, probes: Mapping[str, Dataset] | None = None
) -> dict[str, Any]:
    """Return the settings that all rows of a directory must share; arms and seeds may be added later.

    Data are recognised by their contents, whatever the caller says that their files are.
    """
    probes = probes or {}
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    parts |= {f"probe {name}": probe for name, probe in probes.items()}
    contents = {f"{name} arrays": [digest(part.images), digest(part.labels)] for name, part in parts.items()}
    own = ("seeds", "first_seed") + ("split_seed",) * (protocol.split_seed == 0)
    shared = {name: of for name, of in asdict(protocol).items() if name not in own}
    identities: dict[str, Any] = {f"arm {arm.name}": arm_identity(arm) for arm in arms}
    # Apart, because earlier directories lack it.
    identities |= {f"code of arm {arm.name}": used for arm in arms if (used := _code(arm))}
    return {
        **without_defaults(shared),
        "data": splits.sha256,
        "probes": sorted(probes),
        **contents,
        "mask_scheme": MASK_SCHEME,
        "train_sample": "stratified",
        "jax_settings": jax_settings(),
        **identities,
    }


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


def _code(arm: Arm) -> dict[str, str]:
    return code_used((arm.model, arm.optimizer, *(getattr(arm, name) for name in PIECES)))


def _network(model: ConvNet) -> str:
    """Describe a `ConvNet` as directories always have; `dtype` appears only if it is not float32."""
    lines = ["# attributes"]
    for field in fields(model):
        if field.name not in ("parent", "name", "dtype"):
            value = getattr(model, field.name)
            lines.append(f"{field.name} = {_function(value) if callable(value) else repr(value)}")
    text = "".join(f"    {line}\n" for line in lines)
    dtype = "" if model.dtype == "float32" else f" {model.dtype}"
    return f"{type(model).__name__}(\n{text}){dtype}"


def _function(value: Any) -> str:
    """Describe an activation, pooling or dropout function: one of JAX or Flax by its name alone."""
    published = hasattr(value, "__name__") and value.__module__.split(".")[0] in ("jax", "flax")
    return value.__name__ if published else describe(value)
