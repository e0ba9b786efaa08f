"""What functions and classes use without naming it in their own source: global values and helpers."""

import dis
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.errors import ArgumentError
from cnnjax.files.identity import describe

PUBLISHED = frozenset(
    {"cnnjax", "jax", "jaxlib", "flax", "optax", "numpy", *sys.stdlib_module_names} - {"__main__"}
)
"""Packages that are known by their version; what they use is not looked into."""
SIMPLE = bool, int, float, complex, str, bytes, type(None)
CHANGES = frozenset(
    {
        "append",
        "clear",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
    }
)
"""Methods that change a list or a dictionary."""


def code_used(values: Iterable[Any]) -> dict[str, str]:
    """Describe by name what functions, classes and networks use of the code beside them, recursively.

    That is, what they read by a global name, or as an attribute of a module: functions, classes and their
    bases, networks, numbers, texts, arrays, and tuples, lists and dictionaries of them. The code beside them
    is that of the same package or, where that is not installed, of the same directory. Names, lists and
    dictionaries that they assign to are state rather than definitions, and are left out.
    """
    found: dict[str, str] = {}
    pending, seen = list(values), set[int]()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        pending += _inside(value)
        for function in _functions(value):
            pending += _enclosed(function)
            for name, used in _used(function):
                try:
                    found[name] = describe(used)
                except ArgumentError:
                    continue  # as an object that only its address tells from others
                pending.append(used)
    return dict(sorted(found.items()))


def _used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function reads and `code_used` describes, with its name."""
    paths, assigns = _read(function.__code__)
    for *modules, name in sorted(paths):
        space, module = function.__globals__, function.__module__
        for each in modules:
            value = space.get(each)
            if not isinstance(value, ModuleType) or not _beside(value.__name__, function.__module__):
                break
            space, module = vars(value), value.__name__
        else:
            if name in space and _defined(space[name], function, assigns):
                yield f"{module}.{name}", space[name]


def _inside(value: Any) -> list[Any]:
    """Return the values that a network, a partial, a tuple, a class or the like consists of."""
    if isinstance(value, nn.Module):
        own = [field.name for field in fields(value) if field.name not in ("parent", "name")]
        return [type(value), *(getattr(value, name) for name in own)]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, tuple | list):
        return [*value]
    if isinstance(value, Mapping):
        return [*value.values()]
    return [base for base in value.__bases__ if _own(base)] if isinstance(value, type) else []


def _functions(value: Any) -> Iterator[FunctionType]:
    """Yield a function, or the methods of a class, of a package that is not published."""
    if isinstance(value, type) and _own(value):
        for member in vars(value).values():
            yield from _functions(getattr(member, "fget", None) or getattr(member, "__func__", member))
    elif callable(value) and inspect.isfunction(function := inspect.unwrap(value)) and _own(function):
        yield function


def _enclosed(function: FunctionType) -> Iterator[Any]:
    """Yield the values of variables of enclosing functions."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # without a value yet
            yield cell.cell_contents


def _read(code: CodeType) -> tuple[set[tuple[str, ...]], bool]:
    """Return the global names that code reads, and whether it assigns to items, inner functions included.

    Each name comes with the attributes that follow: `helper.scale` is ("helper",) and ("helper", "scale").
    Those that the code assigns to or changes by a method are left out.
    """
    read, state, assigns = set[tuple[str, ...]](), set[tuple[str, ...]](), False
    pending = [code]
    while pending:
        each = pending.pop()
        pending += [constant for constant in each.co_consts if inspect.iscode(constant)]
        path: tuple[str, ...] = ()
        for instruction in dis.get_instructions(each):
            name, value = instruction.opname, instruction.argval
            if name == "STORE_GLOBAL" or (path and value in CHANGES):
                state.add(path or (value,))
            assigns = assigns or name in ("STORE_SUBSCR", "DELETE_SUBSCR")
            attribute = name in ("LOAD_ATTR", "LOAD_METHOD")
            path = (
                (value,)
                if name in ("LOAD_GLOBAL", "LOAD_NAME")
                else (*path, value)
                if path and attribute
                else ()
            )
            read.add(path)
    return {path for path in read - {()} if not any(path[: len(one)] == one for one in state)}, assigns


def _defined(value: Any, function: FunctionType, assigns: bool) -> bool:
    """Whether a value that a function reads consists of numbers, texts, arrays and the code beside it."""
    if isinstance(value, tuple) or (isinstance(value, list) and not assigns):
        parts = value
    elif isinstance(value, Mapping) and not assigns:
        parts = (*value, *value.values())
    else:
        plain = type(value) in SIMPLE or isinstance(value, np.ndarray | np.generic | jax.Array)
        return plain or _beside(_module(value), function.__module__)
    return all(_defined(each, function, assigns) or (callable(each) and not _own(each)) for each in parts)


def _module(value: Any) -> str:
    """Return the module of a function, a class, a network, or of what a partial calls."""
    value = value.func if isinstance(value, partial) else value
    value = type(value) if isinstance(value, nn.Module) else value
    return getattr(value, "__module__", None) or ""


def _beside(module: str, other: str) -> bool:
    """Whether the code of two modules belongs together: one package, or one directory of the user's own."""
    one, two = module.split(".")[0], other.split(".")[0]
    if one in PUBLISHED or not one:
        return False
    return one == two or ((place := _directory(one)) is not None and place == _directory(two))


def _directory(package: str) -> Path | None:
    """Return where a top-level package lies; None for an installed one, or if that is not known."""
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None)
    if file is None:
        return Path.cwd() if package == "__main__" else None  # a notebook, or a prompt
    place = Path(file).resolve().parent
    place = place.parent if hasattr(module, "__path__") else place
    return None if {"site-packages", "dist-packages"} & {*place.parts} else place


def _own(value: Any) -> bool:
    return _module(value).split(".")[0] not in PUBLISHED
