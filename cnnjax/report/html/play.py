"""The parts of a report to play with: their frame, which page.js fills, and the data it fills them from."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.report.html.markup import Markup, encoded, join, tag
from cnnjax.report.html.network import exported
from cnnjax.report.html.subjects import CLASSES, Run, examples
from cnnjax.report.html.words import DATASETS, MINUS

NOUNS = {"mnist": "digit", "fashion_mnist": "garment", "kmnist": "character"}


def data(run: Run) -> dict[str, Any]:
    """What page.js knows of a run: the network, an example of each class, and JAX's logits for it."""
    chosen = examples(run.test)
    images = jnp.asarray(run.test.images[chosen], jnp.float32) / 255
    apply: Any = jax.jit(run.model.clone(dtype="float32").apply)  # as the page computes, whatever the run did
    return {
        "name": run.name,
        "dataset": DATASETS[run.config.dataset],
        "rate": run.config.dropout_rate,
        "classes": CLASSES[run.config.dataset],
        **exported(run.model, run.params, run.test.images.shape[1:]),
        "examples": [
            {"label": int(run.test.labels[i]), "pixels": encoded(run.test.images[i])} for i in chosen
        ],
        "logits": apply({"params": run.params}, images).tolist(),
    }


def heading(runs: Sequence[Run]) -> str:
    """What one may draw."""
    nouns = {NOUNS[run.config.dataset] for run in runs}
    return f"Draw a {nouns.pop()}" if len(nouns) == 1 else "Draw something"


def draw(runs: Sequence[Run]) -> Markup:
    """The pad, and the answer beside it."""
    choice = tag(
        "p",
        tag("label", "Network ", for_="network"),
        tag("select", *(tag("option", run.name, value=i) for i, run in enumerate(runs)), id="network"),
        class_="choice",
        hidden=len(runs) == 1,
    )
    told = (
        "The weights of this network are in this page, and it answers while you draw. As the makers of MNIST "
        "did, the page first fits your strokes into 20 \N{MULTIPLICATION SIGN} 20 pixels and puts their "
        "centre of mass in the middle."
    )
    keys = join(
        tag("kbd", "↑"),
        tag("kbd", "↓"),
        tag("kbd", "←"),
        tag("kbd", "→"),
        " move the pen, ",
        tag("kbd", "Space"),
        " puts it down or lifts it, ",
        tag("kbd", "Backspace"),
        " takes the last stroke back, ",
        tag("kbd", "Delete"),
        " clears.",
    )
    pad = tag(
        "div",
        tag(
            "canvas",
            id="pad",
            width=560,
            height=560,
            tabindex=0,
            role="application",
            aria_label="Drawing pad",
            aria_describedby="pad-keys",
        ),
        tag("p", "Draw here", id="pad-hint", aria_hidden="true"),
        tag(
            "div",
            tag("button", "Undo", id="undo", type="button"),
            tag("button", "Clear", id="clear", type="button"),
            tag("span", id="pen", class_="note"),
            class_="buttons",
        ),
        class_="pad",
    )
    seen = tag(
        "figure",
        tag(
            "canvas",
            id="seen",
            width=28,
            height=28,
            role="img",
            aria_label="What the network sees",
        ),
        tag("figcaption", "what it sees"),
        class_="seen",
    )
    answer = tag(
        "div",
        tag("div", seen, tag("p", id="verdict"), class_="verdict"),
        tag("ol", id="bars", class_="bars", aria_label="Probability of each class"),
        class_="answer",
    )
    return join(
        tag("p", told),
        choice,
        tag("div", pad, answer, class_="draw"),
        tag("p", "With the keyboard: ", keys, id="pad-keys", class_="note"),
        tag("p", id="check", class_="note"),
        tag("p", id="spoken", class_="unseen", role="status"),
    )


def inside() -> Markup:
    """An example on its way through the layers."""
    return join(
        tag(
            "p",
            "Choose an image. Each column is one channel: on top the kernel that was learned, below it what "
            "the convolution makes of the image, what pooling leaves of that, and what dropout lets through "
            "in training, at the rate that is set below.",
        ),
        tag("div", id="examples", class_="examples", role="radiogroup", aria_label="Example"),
        tag("ul", tag("li", "positive"), tag("li", "negative", class_="cold"), class_="key swatches"),
        tag("div", id="layers"),
    )


def dropout() -> Markup:
    """The slider, three pictures and the mean."""

    def panel(name: str, told: str) -> Markup:
        canvas = tag("canvas", id=name, role="img", aria_label=told)
        return tag("figure", tag("figcaption", told), canvas, tag("p", id=f"{name}-told"))

    return join(
        tag(
            "p",
            "In training, every value that leaves the last pooling is dropped with a probability, the rate, "
            f"and the others are divided by 1 {MINUS} rate. Move the slider: more and more values vanish, "
            "what is left becomes stronger, and but for chance the mean stays where it was. So nothing needs "
            "to change at test time: that is what “inverted” means.",
        ),
        tag(
            "div",
            tag("label", "Dropout rate", for_="rate"),
            tag("input", id="rate", type="range", min=0, max=0.95, step=0.05),
            tag("output", id="rate-told", for_="rate"),
            tag("button", "Another mask", id="remask", type="button"),
            class_="control",
        ),
        tag(
            "div",
            panel("before", "what comes in"),
            panel("mask", "the mask"),
            panel("after", "what goes on"),
            class_="panels",
        ),
        tag(
            "figure",
            tag("figcaption", "The mean of all values, at every rate"),
            tag(
                "ul",
                tag("li", f"kept and divided by 1 {MINUS} rate", class_="c0"),
                tag("li", "only dropped, not divided", class_="c1"),
                tag("li", "where 95% of masks lie", class_="c0 wide"),
                class_="key swatches",
            ),
            tag("div", id="means"),
            class_="chart means",
        ),
        tag("p", id="under-masks"),
    )
