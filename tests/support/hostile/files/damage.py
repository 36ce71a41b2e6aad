"""Damage to the bytes of any file, and to what a path leads to."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
#: Stretches of a file, as (first byte, length).
Areas = Sequence[tuple[int, int]]


def _place(rng: Rng, size: int, areas: Areas | None) -> int:
    """A byte, of the areas if there are any."""
    if not areas:
        return int(rng.integers(size))
    lengths = np.array([length for _, length in areas], float)
    first, length = areas[int(rng.choice(len(areas), p=lengths / lengths.sum()))]
    return min(size - 1, first + int(rng.integers(length)))


def flip(rng: Rng, path: Path, areas: Areas | None = None) -> str:
    """Change some bytes: one bit of each, or all."""
    content = bytearray(path.read_bytes())
    if not content:
        return "nothing to flip"
    places = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        place = _place(rng, len(content), areas)
        mask = 1 << int(rng.integers(8)) if rng.random() < 0.6 else int(rng.integers(1, 256))
        content[place] ^= mask
        places.append(f"{place} ^ {mask:#x}")
    path.write_bytes(content)
    return f"flip {', '.join(places)} of {path.name}"


def overwrite(rng: Rng, path: Path, areas: Areas | None = None) -> str:
    """Overwrite a stretch with zeros, ones, noise or another stretch."""
    content = bytearray(path.read_bytes())
    if not content:
        return "nothing to overwrite"
    place = _place(rng, len(content), areas)
    n = min(int(rng.choice([4, 16, 64, 512, 4096])), len(content) - place)
    kind = str(rng.choice(["zeros", "ones", "noise", "elsewhere"]))
    other = int(rng.integers(len(content)))
    content[place : place + n] = {
        "zeros": bytes(n),
        "ones": b"\xff" * n,
        "noise": rng.bytes(n),
        "elsewhere": bytes(content[other : other + n]).ljust(n, b"\0"),
    }[kind]
    path.write_bytes(content)
    return f"{kind} over {n} bytes at {place} of {path.name}"


def cut(rng: Rng, path: Path) -> str:
    """Cut a file short, or a piece out of it."""
    content = path.read_bytes()
    size = len(content)
    place = int(rng.choice([0, 1, size // 2, size - 1, max(0, size - 8), rng.integers(size + 1)]))
    if rng.random() < 0.7:
        path.write_bytes(content[:place])
        return f"{path.name} ends after {place} of {size} bytes"
    n = int(rng.choice([1, 8, 100]))
    path.write_bytes(content[:place] + content[place + n :])
    return f"{n} bytes at {place} of {path.name} left out"


def extend(rng: Rng, path: Path) -> str:
    """Put something after the end, or before the beginning."""
    more = bytes(rng.choice([b"\0", b"\n", b"x", b"\xff"])) * int(rng.choice([1, 512, 5000]))
    if rng.random() < 0.75:
        path.write_bytes(path.read_bytes() + more)
        return f"{len(more)} bytes after {path.name}"
    path.write_bytes(more + path.read_bytes())
    return f"{len(more)} bytes before {path.name}"


BYTES: dict[str, Any] = {"flip": flip, "overwrite": overwrite, "cut": cut, "extend": extend}


def put_instead(rng: Rng, path: Path) -> str:
    """Put something that is no such file in a file's or folder's place."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    kind = str(
        rng.choice(["folder", "fifo", "socket", "loop", "nowhere", "empty", "zero", "other"])
    )
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        # Paths of sockets are short.
        here = os.open(path.parent, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(f"/proc/self/fd/{here}/s")
            os.rename(path.parent / "s", path)
        finally:
            os.close(here)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "nowhere":
        path.symlink_to("nowhere")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + rng.bytes(200))
    return f"{kind} in place of {path.name}"


def link_to(rng: Rng, path: Path) -> str:
    """Move what a path leads to, and leave a symbolic link: nothing changes."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    path.symlink_to(aside.name)
    return f"a link in place of {path.name}"
