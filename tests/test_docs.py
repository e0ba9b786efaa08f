"""The pages in docs/ belong together, their code runs, and their worked examples keep their laws.

Statistical bounds are 5 standard deviations, at fixed seeds.
"""

import importlib
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from snippets import DOCS, NAMED, PAGES, ROOT, blocks, execute

GENERATED = {"tutorials/keras-to-jax.md", "reference/commands.md"}
API = (DOCS / "reference/api.md").read_text()
RATES = [0.0, 0.1, 0.5, 1.0]
SHAPE = (8, 7, 6, 2)


def test_the_navigation_names_every_page() -> None:
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert set(NAMED) == written | GENERATED and len(NAMED) == len(set(NAMED))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    targets = {(page.parent / link).resolve() for link in links}
    generated = {DOCS / name for name in GENERATED}
    assert [target for target in targets - generated if not target.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_begins_with_its_title_and_a_sentence(page: Path) -> None:
    title, sentence = page.read_text().split("\n\n")[:2]
    assert re.match(r"# [^\n]+$", title) and re.match(r"[A-Z][^|`#]+", sentence)


def test_tables_of_evidence_lie_between_marks_of_their_own() -> None:
    for page in (DOCS / "evidence.md", DOCS / "explanation/speed.md"):
        marks = re.findall(r"<!-- (/?)(\w+) -->", page.read_text())
        names = [name for closing, name in marks if not closing]
        assert names and marks == [(slash, name) for name in names for slash in ("", "/")]


@pytest.mark.parametrize("name", ["data", "experiment", "optimizers", "stats", "dropout", "pooling", "keys"])
def test_the_reference_shows_the_public_modules(name: str) -> None:
    assert importlib.import_module(f"cnnjax.{name}").__doc__
    assert f"::: cnnjax.{name}\n" in API


def test_the_reference_shows_every_call_of_the_package() -> None:
    for name in importlib.import_module("cnnjax").__all__:
        assert f"::: cnnjax.api.{name}\n" in API


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    pages = {file.relative_to(tmp_path): file.read_text() for file in tmp_path.rglob("*.html")}
    assert {Path(name).with_suffix(".html") for name in NAMED} <= set(pages)
    for name, text in pages.items():
        assert not re.search(r"<(script|img|iframe)[^>]* src=\"?(https?:)?//", text), name
        assert not re.search(r"<link[^>]* rel=\"?(stylesheet|preconnect)[^>]*(https?:)?//", text), name
    text = pages[Path("reference/commands.html")]
    assert all(f"cnnjax {name}" in text for name in ("train", "evaluate", "report"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(blocks(page, "python"), tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The definitions of docs/tutorials/own-layers.md."""
    with pytest.MonkeyPatch.context() as patch:
        definitions = blocks(DOCS / "tutorials/own-layers.md", "python")[:2]
        return execute(definitions, tmp_path_factory.mktemp("page"), patch)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_lp_pooling_is_the_norm_over_the_window(own: dict[str, Any], p: float) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    tiles = np.abs(x[:, :4].reshape(2, 2, 2, 3, 2, 3))
    expected = (tiles**p).mean((2, 4)) ** (1 / p)
    np.testing.assert_allclose(own["lp_pool"](x, 2, p), expected, rtol=1e-5)


def test_lp_pooling_tends_to_the_maximum(own: dict[str, Any]) -> None:
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3), minval=0.5)
    largest = x.reshape(2, 2, 2, 2, 2, 3).max((2, 4))
    np.testing.assert_allclose(own["lp_pool"](x, 2, 100.0), largest, rtol=0.02)


def test_lp_pooling_of_zeros_has_a_finite_gradient(own: dict[str, Any]) -> None:
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0] = 2
    value, gradient = jax.jit(jax.value_and_grad(lambda x: own["lp_pool"](x).sum()))(x)
    chex.assert_tree_all_finite((value, gradient))
    assert float(value) == pytest.approx((8 / 4) ** (1 / 3))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("block", [1, 3])
def test_every_element_is_dropped_with_the_rate(own: dict[str, Any], block: int, rate: float) -> None:
    """At the edges and corners too."""
    n = 4000
    keep = jax.jit(own["keep_blocks"], static_argnums=(1, 4))
    kept = keep(jax.random.key(1), (n, 5, 4, 1), jnp.float32(rate), 0, block)
    chex.assert_shape(kept, (n, 5, 4, 1))
    error = np.abs(1 - np.asarray(kept).mean(0) - rate)
    assert error.max() <= 5 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_what_is_dropped_is_made_of_squares(own: dict[str, Any], block: int) -> None:
    """Each dropped element lies in a square that is dropped as far as it lies inside the image."""
    keep = jax.jit(own["keep_blocks"], static_argnums=(1, 4))
    kept = keep(jax.random.key(2), (60, 9, 8, 1), jnp.float32(0.15), 0, block)
    dropped = np.pad(~np.asarray(kept)[..., 0], ((0, 0), *[(block - 1,) * 2] * 2), constant_values=True)
    high, wide = 9 + block - 1, 8 + block - 1
    squares = [(i, j) for i in range(block) for j in range(block)]
    whole = np.all([dropped[:, i : i + high, j : j + wide] for i, j in squares], axis=0)
    covered = np.any([whole[:, i : i + 9, j : j + 8] for i, j in squares], axis=0)
    np.testing.assert_array_equal(covered, ~np.asarray(kept)[..., 0])
    assert 0.1 < covered.mean() < 0.2


def test_the_expectation_is_the_input(own: dict[str, Any]) -> None:
    n, rate = 5000, 0.3
    x = np.broadcast_to(np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1), (n, 3, 4, 1))
    mean = np.asarray(jax.jit(own["drop_block"])(jax.random.key(3), x, rate)).mean(0)
    assert (np.abs(mean / x[0] - 1) < 5 * np.sqrt(rate / (1 - rate) / n)).all()
    chex.assert_trees_all_equal(own["drop_block"](jax.random.key(3), x, rate, deterministic=True), x)


def test_rate_zero_keeps_and_rate_one_drops_all_with_finite_gradients(own: dict[str, Any]) -> None:
    x = jax.random.normal(jax.random.key(0), SHAPE)

    @jax.jit
    def result(rate: jax.Array) -> Any:
        def loss(x: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = own["drop_block"](jax.random.key(1), x, rate)
            return jnp.sum(y**2), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, rate)

    (_, kept), _ = result(jnp.float32(0))
    chex.assert_trees_all_equal(kept, x)
    (_, dropped), gradients = result(jnp.float32(1))
    chex.assert_trees_all_equal((dropped, gradients[0]), (0 * x, 0 * x))
    chex.assert_tree_all_finite([result(jnp.float32(rate)) for rate in RATES])


def test_the_rate_may_be_traced_and_masks_are_nested(own: dict[str, Any]) -> None:
    key, x = jax.random.key(5), jnp.ones(SHAPE)
    together = jax.jit(jax.vmap(lambda rate: own["drop_block"](key, x, rate)))(jnp.array(RATES))
    for row, rate in zip(together, RATES, strict=True):
        chex.assert_trees_all_close(row, own["drop_block"](key, x, rate), rtol=1e-6)
    kept = np.asarray(together) > 0
    assert (kept[:-1] | ~kept[1:]).all()


def test_a_mask_does_not_depend_on_the_number_of_devices(own: dict[str, Any]) -> None:
    key, x = jax.random.key(4), jnp.ones(SHAPE)
    whole = own["drop_block"](key, x, 0.4)
    assert len({np.asarray(one).tobytes() for one in whole}) == len(x)

    def part(x: jax.Array) -> jax.Array:
        return own["drop_block"](key, x, 0.4, first_example=jax.lax.axis_index("data") * len(x))

    mesh = partial(jax.make_mesh, axis_names=("data",), axis_types=(AxisType.Auto,))
    for devices in (2, 8):
        divided = jax.shard_map(part, mesh=mesh((devices,)), in_specs=P("data"), out_specs=P("data"))
        chex.assert_trees_all_equal(jax.device_get(jax.jit(divided)(x)), jax.device_get(whole))
