"""Texts by which a directory recognises models and functions, the same in every process."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.errors import ArgumentError


def describe(value: Any) -> str:
    """Describe a value by qualified names, its own values, and a hash of the source of functions and classes.

    A function is also described by what its source does not say: the variables of enclosing functions that it
    uses, defaults that are no literals, and the object of a bound method. Where there is no source to read,
    as of what `exec` or a prompt defines, the compiled code stands for it; that depends on Python's version.
    Global variables and the functions that it calls are not looked into.

    Raises:
        ArgumentError: it has no text that is the same in every process.
    """
    if isinstance(value, nn.Module):
        own = [field.name for field in fields(value) if field.name not in ("parent", "name")]
        inside = ", ".join(f"{name}={describe(getattr(value, name))}" for name in own)
        return f"{describe(type(value))}({inside})"
    if isinstance(value, partial):
        return f"partial({describe((value.func, *value.args))}, {describe(value.keywords)})"
    if hasattr(value, "_asdict") and not inspect.isclass(value):
        return f"{describe(type(value))}{describe(value._asdict())}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(describe, value))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {describe(of)}' for name, of in value.items())}}}"
    if callable(value) and hasattr(value, "__qualname__"):
        function = inspect.unwrap(value)
        bound = {name: of for name, of in _bound(function).items() if of is not value and of is not function}
        values = f" {describe(bound)}" if bound else ""
        return f"{value.__module__}.{value.__qualname__}{_source_hash(value)}{values}"
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        # Its repr has rounded numbers, and not all of them.
        return f"{value.dtype}{list(value.shape)}{_short(np.asarray(value).tobytes())}"
    text = repr(value)
    if " at 0x" in text:
        raise ArgumentError(f"{text} cannot be recognised in another process; use a named function or class")
    return f"{text}{_source_hash(type(value))}" if callable(value) else text


def _bound(value: Any) -> dict[str, Any]:
    """Return the values by name that a function has, and its source does not say."""
    if inspect.ismethod(value):
        return {"self": value.__self__} | _bound(value.__func__)
    if not inspect.isfunction(value):
        return {}
    parameters = inspect.signature(value).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    said = _literal_defaults(textwrap.dedent(_source(value) or "")) if defaults else ()
    return {
        **{name: of for name, of in defaults.items() if name not in said},
        **inspect.getclosurevars(value).nonlocals,
    }


def _literal_defaults(source: str) -> set[str]:
    """Return the parameters whose defaults are literals in the source of a function."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    arguments = next((node for node in ast.walk(tree) if isinstance(node, ast.arguments)), None)
    if arguments is None:
        return set()
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    literal = ast.Constant, ast.UnaryOp  # 1 and -1
    return {argument.arg for argument, default in pairs if isinstance(default, literal)}


def _source_hash(value: Any) -> str:
    """Return " #" and 12 digits of the SHA-256 of the source, or of the code; nothing for what is in C."""
    value = inspect.unwrap(value)
    source = _source(value)
    if source is not None:
        return _short(source.encode())
    code = _code(value)
    return _short(repr(code).encode()) if code else ""


def _short(content: bytes) -> str:
    return f" #{hashlib.sha256(content).hexdigest()[:12]}"


def _code(value: Any) -> Any:
    """Return what compiled code consists of, with a repr that is the same in every process; else None."""
    if isinstance(value, type):
        parts: dict[str, Any] = {}
        for name, of in dict[str, Any](vars(value)).items():
            if isinstance(of, bool | int | float | str) and not name.startswith("__"):
                parts[name] = of
            elif not isinstance(of, type):
                function: Any = getattr(of, "fget", None) or getattr(of, "__func__", of)
                parts[name] = _code(inspect.unwrap(function))
        return sorted((name, repr(part)) for name, part in parts.items() if part is not None) or None
    code = value if inspect.iscode(value) else getattr(value, "__code__", None)
    if not inspect.iscode(code):
        return None
    constants = [
        _code(of) if inspect.iscode(of) else sorted(map(repr, of)) if isinstance(of, frozenset) else of
        for of in code.co_consts
    ]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _source(value: Any) -> str | None:
    """Return the source of a function or a class, or None if it cannot be read."""
    if getattr(getattr(value, "__code__", None), "co_filename", "") == "<string>":
        return None  # from Python 3.13 on, what `exec` defines would get the source of `python -c`
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        return None
    if getattr(value, "__name__", "") == "<lambda>":
        # Its lines hold other code too.
        places = set(value.__code__.co_positions())
        nodes = ast.walk(ast.parse("".join(inspect.findsource(value)[0])))
        source = next(ast.unparse(n) for n in nodes if isinstance(n, ast.Lambda) and _place(n.body) in places)
    return source


def _place(node: ast.expr) -> tuple[int | None, ...]:
    """Where an expression is in its file, as `co_positions` says it."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
