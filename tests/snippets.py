"""The Python blocks of a page of Markdown, and how to run them as a reader does, on the tiny data set."""

import re
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml
from helpers import ROOT, TINY

from cnnjax import experiment
from cnnjax.data import load, loading

DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for part in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(part)]


NAMED = _leaves(SITE["nav"])
PAGES = [DOCS / name for name in NAMED if (DOCS / name).exists()]
"""The pages of the documentation in the order of its navigation, less those made when it is built."""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def execute(snippets: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run blocks in one namespace, in a directory, with the tiny set for MNIST; return the namespace."""
    tiny = load("fashion_mnist", TINY, announce=lambda _: None)
    monkeypatch.setattr(loading, "_read_cache", lambda name: tiny._replace(name=name))
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)  # the tests have configured the devices
    monkeypatch.chdir(directory)
    # A file, for functions are recognised by their source.
    script = directory / "snippets.py"
    script.write_text("\n".join(snippets))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users have it
        exec(compile(script.read_text(), script, "exec"), namespace)
    return namespace
