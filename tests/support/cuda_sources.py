"""CUDA sources with their headers put in place, which know where each of their lines comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pdex_gpu.backends.cuda import sources

_INCLUDE = re.compile(r'#include "([\w.]+)"')


@dataclass(frozen=True)
class Line:
    """A line of a source or of one of its headers."""

    file: str
    number: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class Source:
    """A source as compilers see it.

    Attributes
    ----------
    name : str
        Stem of its file.
    lines : tuple of Line
    """

    name: str
    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        return "".join(f"{line.text}\n" for line in self.lines)

    def line(self, number: int) -> Line:
        """A line by its number in the text, from 1."""
        return self.lines[number - 1]


def read(name: str, folder: Path | None = None) -> Source:
    """Read a source from `folder`, by default from that of the package."""
    if folder is None:
        return _of_the_package(name)
    return Source(name, _expanded(f"{name}.cu", folder))


@cache
def _of_the_package(name: str) -> Source:
    return Source(name, _expanded(f"{name}.cu", sources.folder()))


def _expanded(file: str, folder: Path) -> tuple[Line, ...]:
    lines: list[Line] = []
    for number, text in enumerate((folder / file).read_text().splitlines(), start=1):
        if header := _INCLUDE.fullmatch(text):
            lines += _expanded(header[1], folder)
        else:
            lines.append(Line(file, number, text))
    return tuple(lines)
