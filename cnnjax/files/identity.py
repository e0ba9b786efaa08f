"""Texts by which a directory recognises models and functions, the same in every process."""

import ast
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import flax.linen as nn

from cnnjax.errors import ArgumentError


def describe(value: Any) -> str:
    """Describe a value by qualified names, its own values, and a hash of the source of functions and classes.

    A function is also described by the variables of enclosing functions that it uses.

    Raises:
        ArgumentError: it has no text that is the same in every process.
    """
    if isinstance(value, nn.Module):
        own = [field.name for field in fields(value) if field.name not in ("parent", "name")]
        inside = ", ".join(f"{name}={describe(getattr(value, name))}" for name in own)
        return f"{describe(type(value))}({inside})"
    if isinstance(value, partial):
        return f"partial({describe((value.func, *value.args))}, {describe(value.keywords)})"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return f"{describe(type(value))}{describe(value._asdict())}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(describe, value))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {describe(of)}' for name, of in value.items())}}}"
    if callable(value) and hasattr(value, "__qualname__"):
        enclosed = inspect.getclosurevars(value).nonlocals if inspect.isfunction(value) else {}
        enclosed = {name: of for name, of in enclosed.items() if of is not value}
        values = f" {describe(enclosed)}" if enclosed else ""
        return f"{value.__module__}.{value.__qualname__}{_source_hash(value)}{values}"
    text = repr(value)
    if " at 0x" in text:
        raise ArgumentError(f"{text} cannot be recognised in another process; use a named function or class")
    return text


def _source_hash(value: Any) -> str:
    """Return " #" and 12 digits of the SHA-256 of the source; nothing for what is written in C."""
    value = inspect.unwrap(value)
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        return ""
    if getattr(value, "__name__", "") == "<lambda>":
        # Its lines hold other code too.
        places = set(value.__code__.co_positions())
        nodes = ast.walk(ast.parse("".join(inspect.findsource(value)[0])))
        source = next(ast.unparse(n) for n in nodes if isinstance(n, ast.Lambda) and _place(n.body) in places)
    return f" #{hashlib.sha256(source.encode()).hexdigest()[:12]}"


def _place(node: ast.expr) -> tuple[int | None, ...]:
    """Where an expression is in its file, as `co_positions` says it."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
