"""Helpers of the report tests: an HTML parser, and runs and experiments made without training."""

import csv
import io
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from helpers import MORE

from cnnjax.data import Dataset, load
from cnnjax.models import ConvNet
from cnnjax.report.html.subjects import Run
from cnnjax.runs.programs import Evaluation
from cnnjax.runs.train_config import TrainConfig
from cnnjax.stats import conclusion, summarise

LONG = "a network whose name is a sentence, and_a_part_of_it_has_no_place_where_a_line_could_break"
VOID = {"meta", "link", "img", "input", "br"}


@dataclass
class Page(HTMLParser):
    """Collects elements with their attributes and text; fails if elements do not nest."""

    html: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    open_: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()
        assert not self.open_, self.open_

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, [])
        if tag not in VOID:
            self.open_.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open_.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open_:
            self.texts[self.open_[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return "\n".join(text for texts in self.texts.values() for text in texts)

    def data(self) -> dict[str, Any]:
        """The JSON block."""
        blocks = zip(self.all("script"), self.texts["script"], strict=True)
        (record,) = (json.loads(text) for attributes, text in blocks if attributes.get("id"))
        return record


def tiny_test() -> Dataset:
    return load("fashion_mnist", MORE, announce=lambda _: None).test


def own_test(n: int = 60, shape: tuple[int, ...] = (12, 10, 3), classes: int = 7) -> Dataset:
    """Make test images of one's own, whose classes have names."""
    images = np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)
    return Dataset(images, np.arange(n, dtype=np.int32) % classes, tuple(f"kind {i}" for i in range(classes)))


def made_run(
    model: nn.Module, /, name: str = "made", seed: int = 0, test: Dataset | None = None, **settings: Any
) -> Run:
    """Make a run of an untrained network with biases that are not zero; by default on Fashion-MNIST."""
    test = tiny_test() if test is None else test
    params: Any = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *test.image_shape)))["params"]
    params = jax.tree.map(
        lambda leaf: leaf if leaf.ndim > 1 else jax.random.normal(jax.random.key(1), leaf.shape), params
    )
    same = model.clone(dtype="float32") if isinstance(model, ConvNet) else model
    logits = np.asarray(jax.jit(same.apply)({"params": params}, jnp.float32(test.images) / 255))
    row = {"epoch": 1.0, "loss": 2.3, "accuracy": 0.1, "val_loss": 2.2, "val_accuracy": 0.12, "seconds": 0.1}
    config = TrainConfig(**{"dataset": "fashion_mnist", "epochs": 1, **settings})
    tested = Evaluation(2.0, float(np.mean(logits.argmax(axis=1) == test.labels)), logits)
    return Run(name, config, [row], None, model, params, 800, 200, test, tested)


def make_experiment(out: Path, arms: tuple[str, ...], *, seeds: int = 4, finished: bool = True) -> np.ndarray:
    """Write the files of an experiment of three epochs; return the final accuracies [arms, seeds]."""
    out.mkdir(parents=True)
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.9, 1.0, (len(arms), seeds, 3))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("arm", "seed", "epoch", "val_loss", "val_accuracy"))
    for (arm, seed, epoch), value in np.ndenumerate(accuracy):
        if finished or seed < seeds - 1 or epoch < 1:
            writer.writerow((arms[arm], seed, epoch + 1, 1 - value, value))
    (out / "results.csv").write_text(text.getvalue())
    (out / "protocol.json").write_text(json.dumps({"epochs": 3, "dataset": "fashion_mnist"}))
    if finished:
        summary = summarise(accuracy[:, :, -1], arms).as_dict()
        record = {"protocol": "a protocol", "val_accuracy": summary, "conclusion": "a conclusion"}
        (out / "summary.json").write_text(json.dumps(record))
    return accuracy[:, :, -1]


def compared(arms: tuple[str, ...], metric: str, *, seeds: int = 7, scale: float = 1.0) -> dict[str, Any]:
    """Make an entry of summary.json that compares arms, with its sentence."""
    values = scale * np.random.default_rng(1).uniform(0.9, 1.0, (len(arms), seeds))
    summary = summarise(values, arms, higher_is_better="loss" not in metric)
    sentence = conclusion(summary, metric, accuracy="error" in metric or "accuracy" in metric)
    return summary.as_dict() | {"metric": metric, "conclusion": sentence}


def make_pooling(out: Path) -> None:
    """Write the files of an experiment that has two networks, questions and further measures."""
    kinds = ("max", "average", "none, same size")
    names = "keras-cnn", "lenet-swish"
    make_experiment(out, tuple(f"{name}, {kind}" for name in names for kind in kinds), seeds=7)
    measures = {
        "gap": "validation loss",
        "lost_at_shift_1": "accuracy",
        "val_accuracy": "validation accuracy",
    }
    record = {
        name: {"protocol": f"{name}, a protocol", "answers": {"Would the average?": "It would. " * 30}}
        | {key: compared(kinds, metric, scale=0.01) for key, metric in measures.items()}
        for name in names
    }
    (out / "summary.json").write_text(json.dumps(record))


def make_demonstration(out: Path) -> None:
    """Write the files of an experiment with a results.csv of its own kind and no protocol.json."""
    out.mkdir(parents=True)
    (out / "results.csv").write_text("question,arm,seed,epoch,k\naveraging,sampled,0,1,2\n")
    arms = "Adam: inverted", "Adam: classic, start and steps rescaled"
    record = {
        "protocol": "a protocol",
        "versions": {"jax": "0.10.2"},
        "activation, inverted": compared(("inverted in training", "inverted at test"), "mean activation"),
        "averaging": compared(arms, "test error", scale=0.03),
        "forgotten scaling": compared(("classic", "classic not scaled at test"), "test loss", scale=0.2),
    }
    (out / "summary.json").write_text(json.dumps(record))
