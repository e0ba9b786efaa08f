"""What a run directory allows: with which configuration and from where a run in it goes on, or why not."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cnnjax import files
from cnnjax.config import TrainConfig
from cnnjax.data import NAMES, Loaded
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError, UserError
from cnnjax.models import MODELS
from cnnjax.runs import checkpoints, run_directory
from cnnjax.runs.checkpoints import Checkpoint
from cnnjax.runs.manifest import Manifest

CONFIG = "config.json"


def record_of(config: TrainConfig, data_dir: Path | None) -> dict[str, Any]:
    """The content of config.json."""
    return asdict(config) | {"data_dir": None if data_dir is None else str(data_dir.absolute())}


def recorded(run: Path, announce: Callable[[str], None]) -> tuple[TrainConfig, Path | None] | None:
    """What the run in this directory was asked for: its configuration and its --data-dir.

    From config.json, or from the last whole checkpoint where that is damaged or missing; None where there is
    no run.

    Raises:
        UserError: both are damaged.
    """
    path = run / CONFIG
    try:
        record = files.read_json(path)
        if record is not None:
            return _parsed(record, path)
    except UserError as damaged:
        found = checkpoints.newest(run / run_directory.CHECKPOINTS, announce)
        if found is None:
            raise
        announce(f"{damaged}; {found.path.name} knows what it held")
        return _parsed(found.manifest.config, found.path)
    found = checkpoints.newest(run / run_directory.CHECKPOINTS, announce)
    return None if found is None else _parsed(found.manifest.config, found.path)


def refuse_another_config(config: TrainConfig, recorded: TrainConfig, run: Path) -> None:
    """Raise `ArgumentError`, naming what differs, unless the configurations agree in all but `epochs`."""
    was, given = asdict(recorded), asdict(config)
    differ = [name for name in was if name != "epochs" and was[name] != given[name]]
    if differ:
        flags = ", ".join(f"--{name.replace('_', '-')} {was[name]} (not {given[name]})" for name in differ)
        raise ArgumentError(
            f"{run} was started with {flags}; give the same or nothing, or choose another --out"
        )


def refuse_another_run(config: TrainConfig, start: Checkpoint) -> None:
    """Check that a run of `config` can go on from the checkpoint `start`.

    Raises:
        ArgumentError: another configuration, or more epochs than are asked for.
        UserError: another version of the mask scheme.
    """
    recorded, _ = _parsed(start.manifest.config, start.path)
    refuse_another_config(config, recorded, start.path)
    done = len(start.manifest.history)
    if done > config.epochs:
        raise ArgumentError(
            f"--epochs {config.epochs} is less than what {start.path} has; give {done} or more"
        )
    if start.manifest.mask_scheme != MASK_SCHEME:
        version = start.manifest.versions.get("cnnjax", "unknown")
        raise UserError(
            f"{start.path} was made under mask scheme {start.manifest.mask_scheme}, and this is mask scheme "
            f"{MASK_SCHEME}: its dropout masks would change half-way; go on with cnnjax {version}, or start "
            "again with --overwrite"
        )


def refuse_other_data(loaded: Loaded, start: Checkpoint) -> None:
    """Raise `UserError` unless the data are, to the byte, those that the run began with."""
    was = start.manifest.data["sha256"]
    for file, digest in loaded.sha256.items():
        if was.get(file) != digest:
            raise UserError(
                f"the data are not those that {start.path} was trained on: the sha256 of {file} is "
                f"{digest[:12]}..., and was {str(was.get(file))[:12]}...; give the same --data-dir, or start "
                "again with --overwrite"
            )


def other_circumstances(start: Checkpoint, about: Manifest) -> list[str]:
    """What has changed since that may change last digits: "jax 0.10.2 (was 0.10.1)"."""
    was, now = start.manifest, about
    changed = [(name, now.versions[name], was.versions.get(name)) for name in now.versions]
    changed += [(f"device {name}", now.device[name], was.device.get(name)) for name in now.device]
    return [f"{name} {value} (was {before})" for name, value, before in changed if value != before]


def _parsed(record: dict[str, Any], path: Path) -> tuple[TrainConfig, Path | None]:
    record = dict(record)
    data_dir = record.pop("data_dir", None)
    kinds = {field.name: type(field.default) for field in fields(TrainConfig)}
    try:
        if kinds.keys() != record.keys() or not isinstance(data_dir, str | None):
            raise TypeError("its entries are not those of this version")
        for name, kind in kinds.items():
            if type(record[name]) not in ((int, float) if kind is float else (kind,)):
                raise TypeError(f"{name} is {record[name]!r}")
        for name, known in (("model", MODELS), ("dataset", NAMES)):
            if record[name] not in known:
                raise TypeError(f"{name} is {record[name]!r}")
        return TrainConfig(**record), None if data_dir is None else Path(data_dir)
    except (TypeError, ArgumentError) as error:
        raise UserError(
            f"{path} is damaged: {error}; put it back from a copy, or start again with --overwrite"
        ) from error
