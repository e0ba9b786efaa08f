"""What a run trains: the task that its configuration names, with objects of the user's own in their place."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from cnnjax.errors import ArgumentError, UserError, one_line
from cnnjax.files.code import code_used
from cnnjax.files.identity import describe
from cnnjax.files.misspelt import choose, nearest
from cnnjax.models import MODELS, ConvNet
from cnnjax.optimizers import make_optimizer
from cnnjax.runs.train_config import CUSTOM, TrainConfig
from cnnjax.task import Augment, Loss, MakeOptimizer, Preprocess, Task, reads_rate


def model_named(name: str) -> nn.Module:
    """Look up a network in `MODELS`, or import it.

    Args:
        name: a key of `MODELS`, or "package.module:NAME" of a module, or of what makes one.

    Raises:
        ArgumentError: there is none of that name.
    """
    if ":" not in name:
        if name not in MODELS:
            raise ArgumentError(
                f"unknown model {name!r}{choose(name, MODELS)}, or import your own as package.module:NAME"
            )
        return MODELS[name]
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        file = Path(path)
        raise ArgumentError(
            f"unknown model {name!r}; give it as {file.stem}:{attribute}, in the directory of {file.name}"
        )
    try:
        module = importlib.import_module(path)
        if not hasattr(module, attribute):
            raise AttributeError(f"{path} has no attribute {attribute!r}{nearest(attribute, vars(module))}")
        model = getattr(module, attribute)
        model = model if isinstance(model, nn.Module) else model()
    except Exception as error:
        files = [file.stem for file in Path().glob("*.py")]
        near = nearest(path, files) if isinstance(error, ModuleNotFoundError) and path not in files else ""
        raise ArgumentError(f"cannot import the model {name}: {one_line(error)}{near}") from error
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"{name} is {type(model).__name__}; give a flax.linen.Module, or what makes one")
    return model


def for_classes(model: nn.Module, classes: int) -> nn.Module:
    """Give a network a logit for each class, if it has a field `classes`."""
    named = isinstance(model, nn.Module) and any(field.name == "classes" for field in fields(model))
    return model.clone(classes=classes) if named else model


class Custom(NamedTuple):
    """Parts of a task that have no name on the command line; None for those that have."""

    model: nn.Module | None = None
    optimizer: MakeOptimizer | None = None
    loss: Loss | None = None
    preprocess: Preprocess | None = None
    augment: Augment | None = None
    hparams: Any = None  # a NamedTuple of scalars

    @property
    def texts(self) -> dict[str, str]:
        """Describe the parts that are given, and the code that they use, for config.json."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        code = {
            f"{name} uses {used}": text
            for name, value in given.items()
            for used, text in code_used([value]).items()
        }
        return {name: describe(value) for name, value in given.items()} | code


NAMED = Custom()
EVALUATED = ("model", "loss", "preprocess", "hparams")
"""The parts that evaluation needs."""


def imported(model: str, custom: Custom = NAMED) -> Custom:
    """Add the model if its name says where to import it from: "package.module:NAME"."""
    return custom._replace(model=model_named(model)) if ":" in model else custom


def recognised(
    config: TrainConfig, custom: Custom, where: object, parts: Sequence[str] = Custom._fields
) -> Custom:
    """Return the custom parts of a run that exists: `custom`, with the model imported.

    Raises:
        UserError: one of `parts` is not what the run recorded.
    """
    custom = imported(config.model, custom)
    was, now = dict(config.custom), custom.texts
    if missing := [name for name in parts if name in was and name not in now]:
        raise UserError(
            f"{where} was trained from Python with objects of its own; load it there: cnnjax.load(directory, "
            f"{', '.join(f'{name}=...' for name in missing)})"
        )
    used = sorted(name for name in {*was, *now} if " uses " in name and name.split()[0] in parts)
    used *= any(name in was for name in used)  # earlier versions recorded none
    for name in (*parts, *used):
        if was.get(name) != now.get(name):
            part, _, of = name.partition(" uses ")
            own = f"the {part} differ" if part == "hparams" else f"the {part} differs"
            what = f"{of}, which the {part} uses, differs" if of else own
            raise UserError(
                f"{what} from that of {where}: it was {was.get(name)}, and is {now.get(name)}; restore it, "
                "or train anew"
            )
    return custom


def completed(given: Mapping[str, Any], model: nn.Module | None = None) -> dict[str, Any]:
    """Complete the settings of a run, by the names of `TrainConfig`, where the model reads no dropout rate.

    Args:
        given: what the user chose.
        model: the model, if it is the user's own; one with an import path is imported.

    Raises:
        ArgumentError: a dropout rate is given, and the model does not read it.
    """
    name = given.get("model", TrainConfig.model)
    model = model or model_named(name)
    if reads_rate(model):
        return dict(given)
    if given.get("dropout_rate"):
        lacks = "uses neither an argument dropout_rate nor hparams.dropout_rate"
        raise ArgumentError(
            f"--dropout-rate {given['dropout_rate']} does nothing with {name}: its __call__ "
            f"{'has no place for it' if isinstance(model, ConvNet) else lacks}; omit the rate"
        )
    # Earlier versions recorded the default with every `ConvNet`.
    return dict(given) if isinstance(model, ConvNet) else {**given, "dropout_rate": 0.0}


def network(config: TrainConfig, classes: int = 10, custom: Custom = NAMED) -> nn.Module:
    """The model of a configuration, with a logit for each class of its data.

    Raises:
        ArgumentError: there is no such model, or it cannot do what the configuration asks for.
    """
    model = for_classes(model_named(config.model) if custom.model is None else custom.model, classes)
    scale, dtype = config.pixel_scale, config.compute_dtype
    if isinstance(model, ConvNet):
        model = model if scale == 1.0 else model.clone(pixel_scale=scale)
        return model if dtype == "float32" else model.clone(dtype=dtype)
    if scale != 1.0 or dtype != "float32":
        raise ArgumentError(f"--pixel-scale and --compute-dtype do nothing with {config.model}; omit them")
    return model


def task(config: TrainConfig, classes: int = 10, total_steps: int = 1, custom: Custom = NAMED) -> Task:
    """What a configuration trains, in this number of steps; evaluation does not depend on it."""
    # A network that is only evaluated may come without its own optimizer.
    optimizer = custom.optimizer or (TrainConfig if config.optimizer == CUSTOM else config).optimizer
    given = {name: getattr(custom, name) for name in ("loss", "preprocess", "augment")}
    parts = {name: part for name, part in given.items() if part is not None}
    make = make_optimizer(optimizer, config.schedule, total_steps)
    return Task(network(config, classes, custom), make, **parts)


def hparams(config: TrainConfig, custom: Custom = NAMED) -> Any:
    """The traced numbers of a configuration."""
    return config.hparams if custom.hparams is None else custom.hparams
