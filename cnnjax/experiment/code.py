"""What the functions of an arm use without naming it in their own source: global values and helpers."""

import dis
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.errors import ArgumentError
from cnnjax.experiment.protocol import Arm
from cnnjax.files.identity import describe

PUBLISHED = frozenset(
    {"cnnjax", "jax", "jaxlib", "flax", "optax", "numpy", *sys.stdlib_module_names} - {"__main__"}
)
"""Packages that are known by their version; what they use is not looked into."""
SIMPLE = bool, int, float, complex, str, bytes, type(None)


def code_used(arm: Arm) -> dict[str, str]:
    """Describe by name what the functions and classes of an arm use from their own packages, recursively.

    That is, what they read by a global name: functions, classes and their bases, networks, numbers, texts,
    and tuples and arrays of them. Lists, dictionaries and names that they assign to are state rather than
    definitions, and are left out; so is what is reached as an attribute, as in `module.function`.
    """
    found: dict[str, str] = {}
    pending, seen = [arm.model, arm.optimizer, arm.loss, arm.preprocess, arm.augment], set[int]()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        pending += _inside(value)
        for function in _functions(value):
            pending += _enclosed(function)
            for name in sorted(_read(function.__code__)):
                used = function.__globals__.get(name, found)
                if used is not found and (_plain(used) or _package(used) == _package(function)):
                    try:
                        found[f"{function.__module__}.{name}"] = describe(used)
                    except ArgumentError:
                        continue  # as an object that only its address tells from others
                    pending.append(used)
    return dict(sorted(found.items()))


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


def _read(code: CodeType) -> set[str]:
    """Return the global names that code reads and does not assign to, inner functions included."""
    read, assigned = set[str](), set[str]()
    pending = [code]
    while pending:
        each = pending.pop()
        pending += [constant for constant in each.co_consts if inspect.iscode(constant)]
        for instruction in dis.get_instructions(each):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                read.add(instruction.argval)
            elif instruction.opname == "STORE_GLOBAL":
                assigned.add(instruction.argval)
    return read - assigned


def _plain(value: Any) -> bool:
    """Whether it is a number, a text or an array, or a tuple of them."""
    if type(value) is tuple:
        return all(map(_plain, value))
    return type(value) in SIMPLE or isinstance(value, np.ndarray | np.generic | jax.Array)


def _package(value: Any) -> str:
    """Return the top-level package of a function, a class, a network, or of what a partial calls."""
    value = value.func if isinstance(value, partial) else value
    value = type(value) if isinstance(value, nn.Module) else value
    return (getattr(value, "__module__", None) or "").split(".")[0]


def _own(value: Any) -> bool:
    return _package(value) not in PUBLISHED
