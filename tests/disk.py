"""What a disk holds after a power cut, worked out from the journal of `tests/shim.c`.

The contents of a file are safe once it has been flushed, and names once their directory has been: what POSIX
promises, and no more. A rename happens as a whole or not at all, as every file system in use has it.
"""

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(eq=False)
class File:
    now: bytes = b""
    safe: bytes = b""
    unsafe: list[tuple[int, bytes | None]] = field(default_factory=list)  # an offset; bytes, or cut there

    def change(self, offset: int, written: bytes | None) -> None:
        self.now = _changed(self.now, offset, written)
        self.unsafe.append((offset, written))

    def flush(self) -> None:
        self.safe, self.unsafe = self.now, []

    def left(self, draw: random.Random) -> bytes:
        """Return the contents after a power cut: some of what was not flushed is there, or a part of it."""
        content = self.safe
        for offset, written in self.unsafe:
            if draw.random() < 0.5:
                if written and draw.random() < 0.5:
                    written = written[: draw.randrange(len(written))]
                content = _changed(content, offset, written)
        return content


@dataclass(eq=False)
class Directory:
    now: dict[str, "File | Directory"] = field(default_factory=dict)
    safe: dict[str, "File | Directory"] = field(default_factory=dict)


Change = list[tuple[Directory, str, File | Directory | None]]  # names that get another meaning, or none


class Disk:
    """A directory, empty at first, after the operations of a journal."""

    def __init__(self, root: Path, journal: Path) -> None:
        self._root, self._top = root, Directory()
        self._unsafe: list[Change] = []
        for operation, path, other, offset, written in _records(journal.read_bytes()):
            self._replay(operation, path, other, offset, written)

    def now(self) -> dict[str, bytes]:
        """Return all files without a power cut."""
        return {path: file.now for path, file in _files(self._top, "now")}

    def cut_power(self, draw: random.Random | None) -> None:
        """Put what is left into the real directory.

        Args:
            draw: which of the changes that are not safe have been made, in any order; by default none.
        """
        for change in self._unsafe:
            if draw and draw.random() < 0.5:
                _apply(change, "safe")
        shutil.rmtree(self._root)
        self._root.mkdir()
        _write(self._top, self._root, draw)

    def _replay(self, operation: str, path: str, other: str, offset: int, written: bytes) -> None:
        if path.endswith(" (deleted)"):
            return
        if operation in "wts":
            node = self._node(path)
            if isinstance(node, File):
                node.flush() if operation == "s" else node.change(
                    offset, written if operation == "w" else None
                )
            else:
                flushed = [change for change in self._unsafe if any(place is node for place, _, _ in change)]
                for change in flushed:
                    _apply(change, "safe")
                self._unsafe = [change for change in self._unsafe if change not in flushed]
            return
        directory, name = self._place(path)
        if operation in "cm":
            change: Change = [(directory, name, File() if operation == "c" else Directory())]
        elif operation == "u":
            change = [(directory, name, None)]
        else:
            target, new = self._place(other)
            replaced = target.now[new] if operation == "x" else None
            change = [(directory, name, replaced), (target, new, directory.now[name])]
        _apply(change, "now")
        self._unsafe.append(change)

    def _place(self, path: str) -> tuple[Directory, str]:
        *parents, name = os.path.relpath(path, self._root).split("/")
        directory = self._top
        for parent in parents:
            inside = directory.now[parent]
            assert isinstance(inside, Directory), path
            directory = inside
        return directory, name

    def _node(self, path: str) -> File | Directory:
        if os.path.relpath(path, self._root) == ".":
            return self._top
        directory, name = self._place(path)
        return directory.now[name]


def _changed(content: bytes, offset: int, written: bytes | None) -> bytes:
    before = content[:offset].ljust(offset, b"\0")
    return before if written is None else before + written + content[offset + len(written) :]


def _apply(change: Change, which: str) -> None:
    for directory, name, node in change:
        names = getattr(directory, which)
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _files(directory: Directory, which: str, path: str = "") -> Iterator[tuple[str, File]]:
    for name, node in getattr(directory, which).items():
        if isinstance(node, File):
            yield path + name, node
        else:
            yield from _files(node, which, f"{path}{name}/")


def _write(directory: Directory, path: Path, draw: random.Random | None) -> None:
    for name, node in directory.safe.items():
        if isinstance(node, File):
            (path / name).write_bytes(node.left(draw) if draw else node.safe)
        else:
            (path / name).mkdir()
            _write(node, path / name, draw)


def _records(journal: bytes) -> Iterator[tuple[str, str, str, int, bytes]]:
    at = 0
    while at < len(journal):
        end = journal.index(b"\n", at)
        operation, *numbers = journal[at:end].split()
        first, second, offset, length = map(int, numbers)
        ends = end + 1 + first, end + 1 + first + second, end + 1 + first + second + length
        paths = journal[end + 1 : ends[0]], journal[ends[0] : ends[1]]
        path, other = map(os.fsdecode, paths)
        yield operation.decode(), path, other, offset, journal[ends[1] : ends[2]]
        at = ends[2]
