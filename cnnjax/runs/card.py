"""The model card of a run: what its network is, on which data it was trained, and how good it is."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cnnjax.data import Loaded, training_split
from cnnjax.runs.train_config import TrainConfig
from cnnjax.stats.intervals import wilson_interval

CARD = "model_card.md"


def text(config: TrainConfig, loaded: Loaded, record: Mapping[str, Any]) -> str:
    """Return the card, in Markdown.

    It has no dates, times or paths: the card of a resumed run is that of one without interruption.

    Args:
        config: of the run.
        loaded: the data set.
        record: the content of result.json.
    """
    templates = Environment(
        loader=PackageLoader("cnnjax.runs"),
        autoescape=False,
        finalize=escaped,  # for Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    train, val = training_split(loaded, config.train_split)
    images = {"validation": len(val.labels), "test": len(loaded.test.labels)}
    return templates.get_template(CARD).render(
        record,
        config=asdict(config),
        network=config.network,
        shape=loaded.image_shape,
        classes=loaded.class_names,
        train_images=len(train.labels),
        metrics=[_metrics(name, n, record[name]) for name, n in images.items()],
        needed=[name for name in ("model", "loss", "preprocess", "hparams") if name in config.custom],
    )


def escaped(value: object) -> str:
    """Return a value as a line of Markdown that shows it: neither its characters nor HTML in it act."""
    line = "".join(c if c.isprintable() else " " for c in str(value))
    return re.sub(r"([\\`*\[\]<>|#~&$]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def _metrics(images: str, n: int, measured: Mapping[str, float]) -> dict[str, Any]:
    low, high = wilson_interval(round(n * measured["accuracy"]), n)
    return {"images": images, "n": n, "low": low, "high": high, **measured}
