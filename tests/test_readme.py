"""The commands of README and documentation, and the snippets of the README, run on the tiny data set."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, environment, main
from PIL import Image
from snippets import PAGES, ROOT, blocks, execute

from cnnjax.data import load

README = ROOT / "README.md"
WORDS = 900
SOURCES = [README, *PAGES]
LINES = [
    line.split("  #")[0].split(" #")[0].strip()
    for source in SOURCES
    for block in blocks(source, "sh")
    for line in block.splitlines()
]
FIT, ABLATION = blocks(README, "python")
TABLED = sorted(
    {name for source in SOURCES for name in re.findall(r"^\| `(.+?)` \|", source.read_text(), re.M)}
)
EXPERIMENTS = sorted(
    {name for line in [*LINES, *TABLED] for name in re.findall(r"experiments/\w+\.py", line)}
)
TARGETS = sorted({name for line in [*LINES, *TABLED] for name in re.findall(r"^make ([a-z-]+)", line)})
TAKE_DATA = {"train", "evaluate", "predict", "compare", "data"}


def on_tiny(words: list[str]) -> list[str]:
    """Return the arguments with the tiny set in place of MNIST and at most two epochs."""
    if "--epochs" in words:
        place = words.index("--epochs") + 1
        words[place] = str(min(2, int(words[place])))
    elif words[0] == "train":
        words += ["--epochs", "1"]
    if "--data-dir" in words:
        words[words.index("--data-dir") + 1] = str(TINY)
    elif words[0] in TAKE_DATA:
        words += ["--data-dir", str(TINY)]
    return words + ["--dataset", "fashion_mnist"] * (words[0] in {"train", "data"})


def write_own_data(directory: Path) -> None:
    """Write the tiny set as the files of one's own that the pages name, and the module of one's own."""
    (directory / "nets.py").write_text(blocks(ROOT / "docs/tutorials/own-network.md", "python")[0])
    train, test = load("fashion_mnist", TINY)[:2]
    np.savez(
        directory / "mine.npz",
        x_train=train.images,
        y_train=train.labels,
        x_test=test.images,
        y_test=test.labels,
    )
    pixels = train.images.reshape(len(train.images), -1)
    header = ",".join(["label", *(f"pixel{i}" for i in range(pixels.shape[1]))])
    table = np.column_stack([train.labels, pixels])
    np.savetxt(directory / "train.csv", table, fmt="%d", delimiter=",", header=header, comments="")
    for i, (image, label) in enumerate(zip(test.images, test.labels, strict=True)):
        folder = directory / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= WORDS


def test_the_readme_begins_with_the_two_commands() -> None:
    first = next(block for block in blocks(README, "sh"))
    assert [line.split("  #")[0].strip() for line in first.splitlines()] == ["make train", "make test"]


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_there_are_commands_to_run() -> None:
    assert {"make train", "make test"} <= set(LINES)
    assert len([line for line in LINES if line.startswith("cnnjax ")]) >= 7
    assert len(EXPERIMENTS) >= 5


@pytest.mark.slow
def test_the_commands_run_in_the_order_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in LINES:
        words = shlex.split(line)
        given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
        assert set(given.pop("EXTRAS", "").split(",")) - {""} <= extras.keys()
        if words[:2] == ["make", "train"]:
            asked = ["train", *shlex.split(given.get("ARGS", ""))]
            if asked == ["train"] and Path("runs/keras-cnn-seed0").exists():
                continue
            if "DIR" in asked:
                asked += ["--out", "runs/offline"]
        elif words[:1] == ["cnnjax"]:
            asked = words[1 : words.index(">") if ">" in words else None]
        else:
            assert re.match(r"make \w+$|python experiments/|\. \.venv/bin/activate$|mlflow ui$", line), line
            continue
        if "--mlflow" in asked and importlib.util.find_spec("mlflow") is None:
            continue
        if "tfds:cifar10" in asked:
            monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
            assert "download_and_prepare" in main(*asked).err
            continue
        if "--dataset" in asked:
            ended = main(*asked, *["--epochs", "1"] * (asked[0] == "train"))
        else:
            ended = main(*on_tiny(asked))
        # Beside a table for programs, lines for people are on standard error.
        for_programs = {"--json", "--csv"} & set(asked)
        assert ended.code == 0 and (for_programs or not ended.err), (line, ended)
    assert Path("report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", EXPERIMENTS)
def test_the_experiments_are_there(script: str) -> None:
    """They start; their own tests run them."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], env=environment(TINY), capture_output=True, text=True
    )
    assert ended.returncode == 0 and "--quick" in ended.stdout, ended.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_the_targets_are_there(target: str) -> None:
    ended = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_the_snippet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute([ABLATION], tmp_path, monkeypatch)
    assert re.search(
        r"Against max, in validation accuracy over 6 paired seeds, .*average", capsys.readouterr().out
    )
    assert (tmp_path / "results/mine/results.csv").exists()


@pytest.mark.slow
def test_the_first_snippet_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = execute([FIT], tmp_path, monkeypatch)
    assert made["probabilities"].shape == (5, 10) and not (tmp_path / "runs").exists()
