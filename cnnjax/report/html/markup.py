"""HTML as text that is escaped unless it was made here."""

import base64
import html
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


VOID = frozenset({"img", "input", "meta", "br"})


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element; children and attribute values are escaped, `Markup` children are taken as they are.

    Of an attribute's name underscores at the end go and others become hyphens (`class_`, `aria_label`). The
    value None or False leaves it out, True gives the bare name.
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{told}>")
    return Markup(f"<{name}{told}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after the other: text is escaped, None is nothing."""
    return Markup("".join(_escaped(child) for child in children if child is not None))


def data_block(record: Any, **attributes: object) -> Markup:
    """A script element that holds JSON for the page; no text in it can end the element."""
    text = json.dumps(record, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return tag("script", Markup(text), type="application/json", **attributes)


def table(heads: list[str], rows: list[list[object]], caption: str = "", class_: str = "") -> Markup:
    """A table whose first column names the rows; each cell also carries its heading, for narrow screens."""
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, data_head=head) for head, cell in zip(heads[1:], row[1:], strict=True)),
        )
        for row in rows
    ]
    return tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *body),
        class_=class_ or None,
    )


def facts(pairs: Mapping[str, object]) -> Markup:
    """A list of names and what they are."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs.items()),
        class_="facts",
    )


def picture(content: bytes, alt: str, **attributes: object) -> Markup:
    """A PNG, in the page itself."""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=alt, **attributes)


def ink(image: np.ndarray, alt: str) -> Markup:
    """An image u8[height, width, 1], whose bright is ink: black, where the rest lets the ground through."""
    layers = np.concatenate([np.zeros_like(image), image], axis=-1)
    content = io.BytesIO()
    Image.fromarray(layers).save(content, "png", optimize=True)
    height, width = image.shape[:2]
    return picture(content.getvalue(), alt, class_="ink", width=width, height=height)


def encoded(values: np.ndarray) -> str:
    """Bytes of an array in base64; floats as little-endian float32."""
    if values.dtype.kind == "f":
        values = values.astype("<f4")
    return base64.b64encode(values.tobytes()).decode()


def _escaped(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(str(child))


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
