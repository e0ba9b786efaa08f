"""Whether and how the run in a directory can be resumed."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax import files
from cnnjax.data import Loaded, is_identity
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError, UserError, one_line
from cnnjax.files.atomic import LARGEST_RECORD
from cnnjax.files.misspelt import choose
from cnnjax.files.problem import wrong_and_advice
from cnnjax.files.records import LATER
from cnnjax.models import MODELS
from cnnjax.runs import building, checkpoints, manifest, run_directory
from cnnjax.runs.building import Custom
from cnnjax.runs.checkpoints import Checkpoint
from cnnjax.runs.manifest import Manifest
from cnnjax.runs.train_config import TrainConfig

CONFIG = "config.json"


def config_record(config: TrainConfig, data_dir: Path | None) -> dict[str, Any]:
    """Return the content of config.json."""
    return asdict(config) | {"data_dir": None if data_dir is None else str(data_dir.absolute())}


class Recorded(NamedTuple):
    """The run in a directory."""

    config: TrainConfig
    data_dir: Path | None  # its --data-dir
    checkpoint: Checkpoint | None  # the last intact one; None before the first


def recorded(run: Path, announce: Callable[[str], None]) -> Recorded | None:
    """Read the run in a directory; None if it holds no run.

    The configuration is that of config.json, or of the last intact checkpoint if that file is damaged or
    missing.

    Raises:
        UserError: both are damaged, or they differ.
    """
    path, damage, found = run / CONFIG, None, None
    try:
        found = read(path)
    except UserError as error:
        damage = error
    checkpoint = checkpoints.newest(run / run_directory.CHECKPOINTS, announce)
    if checkpoint is not None:
        if damage is not None:
            wrong, _ = wrong_and_advice(str(damage))
            announce(f"{wrong}; using the configuration in {checkpoint.path.name}")
        if found is not None:
            _refuse_edited(found[0], path, checkpoint)
        return Recorded(*(found or _parse(checkpoint.manifest.config, checkpoint.path)), checkpoint)
    if damage is not None:
        raise damage
    return None if found is None else Recorded(*found, None)


def read(path: Path) -> tuple[TrainConfig, Path | None] | None:
    """Return the configuration and the data directory in a config.json; None if there is no such file.

    Raises:
        UserError: it is damaged.
    """
    record = files.read_json(path)
    return None if record is None else _parse(record, path)


def _refuse_edited(config: TrainConfig, path: Path, checkpoint: Checkpoint) -> None:
    """Raise `UserError` if config.json is not the configuration of the checkpoint."""
    was, now = {**LATER, **checkpoint.manifest.config}, asdict(config)
    differ = manifest.differences(was, now)
    changes = [f"{name} is {now.get(name)!r}, and was {was.get(name)!r}" for name in differ]
    done = len(checkpoint.manifest.history)
    if was["schedule"] != "constant" and now["epochs"] != was["epochs"]:
        changes.append(f"epochs is {now['epochs']}, and was {was['epochs']}, which the schedule depends on")
    elif now["epochs"] < min(done, was["epochs"]):
        changes.append(f"epochs is {now['epochs']}, and {done} are done")
    if changes:
        raise UserError(
            f"{path} is not what {checkpoint.path.name} was trained with: {'; '.join(changes)}; put that "
            "back, or remove the file, and train --resume writes it again"
        )


def settings(path: Path) -> dict[str, Any]:
    """Read settings from a TOML or JSON file with some or all entries of a config.json.

    Raises:
        ArgumentError: the file cannot be read, or has an entry that a configuration has not.
    """
    try:
        # Reading a pipe or a device may never end.
        if path.exists() and not (path.is_file() and path.stat().st_size <= LARGEST_RECORD):
            raise ValueError(f"it is not a file of at most {LARGEST_RECORD:,} bytes")
        content = path.read_text()
        record = json.loads(content) if path.suffix == ".json" else tomllib.loads(content)
        given = {name: value for name, value in record.items() if value is not None}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ArgumentError(f"cannot read --config {path}: {one_line(error)}") from error
    types = {field.name: _types(field) for field in fields(TrainConfig)} | {"data_dir": (str,)}
    for name, value in given.items():
        if name not in types:
            raise ArgumentError(f"--config {path} has {name!r}{choose(name, sorted(types))}")
        if type(value) not in types[name]:
            raise ArgumentError(f"--config {path} has {name} = {value!r}, which is not of its type")
    return given


def refuse_another_config(config: TrainConfig, recorded: TrainConfig, run: Path) -> None:
    """Raise `ArgumentError`, naming the differences, unless the configurations agree in all but `epochs`.

    The number of epochs must agree as well if the schedule depends on it.
    """
    was, given = asdict(recorded), asdict(config)
    free = "epochs" if recorded.schedule == "constant" else None
    # Custom parts were compared when they were recognised.
    differ = [name for name in was if name not in (free, "custom") and was[name] != given[name]]
    if differ:
        flags = ", ".join(_difference(name, was[name], given[name]) for name in differ)
        reason = f": the {recorded.schedule} schedule depends on it" if differ == ["epochs"] else ""
        raise ArgumentError(
            f"{run} was started with {flags}{reason}; omit these flags, or choose another --out"
        )


def _difference(name: str, was: object, given: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return f"no {flag} (not {given})" if was is None else f"{flag} {was} (not {given})"


def refuse_another_run(config: TrainConfig, custom: Custom, start: Checkpoint) -> None:
    """Check that a run of `config` and `custom` can resume from the checkpoint `start`.

    Raises:
        ArgumentError: the configuration differs, or the checkpoint has more epochs than `config`.
        UserError: a custom part or a setting of JAX differs, or the mask scheme has another version.
    """
    recorded, _ = _parse(start.manifest.config, start.path)
    building.recognised(recorded, custom, start.path)
    refuse_another_config(config, recorded, start.path)
    done = len(start.manifest.history)
    if done > config.epochs:
        raise ArgumentError(
            f"--epochs {config.epochs} is less than the {done} that {start.path} has; give {done} or more"
        )
    if differ := other_settings(start.manifest):
        raise UserError(
            f"{start.path} was written under other settings of JAX ({', '.join(differ)}), so numbers would "
            "change midway; set them as they were, or start again with --overwrite"
        )
    if start.manifest.mask_scheme != MASK_SCHEME:
        version = start.manifest.versions.get("cnnjax", "unknown")
        raise UserError(
            f"{start.path} was written under mask scheme {start.manifest.mask_scheme}, and this version has "
            f"mask scheme {MASK_SCHEME}: dropout masks would change midway; continue with cnnjax {version}, "
            "or start again with --overwrite"
        )


def other_settings(manifest: Manifest) -> list[str]:
    """Return the settings of JAX that change numbers and are not those of a checkpoint.

    Raises:
        ArgumentError: 64-bit numbers are enabled.
    """
    was, now = manifest.jax_settings, files.jax_settings()
    return sorted(name for name in was | now if was.get(name) != now.get(name))


def refuse_other_data(loaded: Loaded, start: Checkpoint) -> None:
    """Raise `UserError` unless the data are, byte for byte, those that the run started with."""
    was = start.manifest.data["sha256"]
    for file, digest in loaded.sha256.items():
        if was.get(file) != digest:
            raise UserError(
                f"the data differ from those that {start.path} was trained on: the sha256 of {file} is "
                f"{digest[:12]}..., and was {str(was.get(file))[:12]}...; give the same --dataset and "
                "--data-dir, or start again with --overwrite"
            )


def changed_environment(start: Checkpoint, now: Manifest) -> list[str]:
    """Return what changed since the checkpoint and may change last digits: "jax 0.10.2 (was 0.10.1)"."""
    was = start.manifest
    changed = [(name, now.versions[name], was.versions.get(name)) for name in now.versions]
    changed += [(f"device {name}", now.device[name], was.device.get(name)) for name in now.device]
    return [f"{name} {value} (was {before})" for name, value, before in changed if value != before]


def _parse(record: dict[str, Any], path: Path) -> tuple[TrainConfig, Path | None]:
    record = dict(record)
    data_dir = record.pop("data_dir", None)
    types = {field.name: _types(field) for field in fields(TrainConfig)}
    try:
        # A run of an earlier version lacks some entries.
        record = dict(LATER) | record
        if types.keys() != record.keys() or not isinstance(data_dir, str | None):
            raise TypeError("its entries are not those of this version")
        for name, expected in types.items():
            if type(record[name]) not in expected:
                raise TypeError(f"{name} is {record[name]!r}")
        known = record["model"] in MODELS or "model" in record["custom"]
        for name, valid in (("model", known), ("dataset", is_identity(record["dataset"]))):
            if not valid:
                raise TypeError(f"{name} is {record[name]!r}")
        return TrainConfig(**record), None if data_dir is None else Path(data_dir)
    except (TypeError, ArgumentError) as error:
        raise UserError(
            f"{path} is damaged: {error}; restore it from a copy, or start again with --overwrite"
        ) from error


def _types(field: Field[Any]) -> tuple[type, ...]:
    """Return the types that this entry can have in config.json."""
    if field.default is MISSING:
        return (dict,)
    if field.default is None:
        return int, type(None)
    return (int, float) if isinstance(field.default, float) else (type(field.default),)
