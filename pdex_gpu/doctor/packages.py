"""Checks of Python and the packages that this package uses, against the versions it requires."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .._version import __version__
from .base import NOTE, OK, PROBLEM, Check

TOPIC = "Packages"

_NAME = "pdex-gpu"

#: Extras that add features, and what they are for; those of CUDA are examined with CUDA.
_EXTRAS = {
    "polars": "to_polars() and the drop-in replacement for pdex 0.3",
    "zarr": "zarr stores",
    "plot": "figures",
    "pseudobulk": "pseudobulk_dex (DESeq2)",
}


@dataclass(frozen=True)
class Requirement:
    """A requirement ``name>=least``, of the package itself or of an extra."""

    name: str
    least: str
    extra: str | None = None

    @property
    def text(self) -> str:
        return f"{self.name}>={self.least}" if self.least else self.name


def checks() -> Iterator[Check]:
    """Check Python, and the required and optional packages."""
    pythons, requirements = _declared()
    yield _python(pythons)
    if not requirements:
        yield Check(
            TOPIC,
            "versions",
            NOTE,
            "pdex_gpu is imported but not installed, so the versions that it needs are unknown",
            "pip install .",
        )
    yield from (required(r) for r in requirements if r.extra is None)
    yield from (optional(r) for r in requirements if r.extra in _EXTRAS)


def _python(pythons: str) -> Check:
    found = (
        f"pdex_gpu {__version__}, Python {platform.python_version()} ({platform.system()} "
        f"{platform.machine()}), {sys.prefix}"
    )
    return python_version(sys.version_info[:2], pythons, found)


def python_version(version: tuple[int, int], pythons: str, found: str) -> Check:
    """Check that the version of Python is in the required range, such as ``>=3.11,<3.15``."""
    least, below = (re.search(rf"{sign}\s*3\.(\d+)", pythons) for sign in (">=", "<"))
    good = (least is None or version[1] >= int(least[1])) and (
        below is None or version[1] < int(below[1])
    )
    if good:
        return Check(TOPIC, "python", OK, found, required=True)
    wanted = f"3.{int(below[1]) - 1}" if below else f"3.{least[1]}" if least else "3.12"
    return Check(
        TOPIC,
        "python",
        PROBLEM,
        f"{found}; pdex_gpu needs Python {pythons}",
        f"python{wanted} -m venv .venv && .venv/bin/pip install .",
        required=True,
    )


def required(wanted: Requirement, load: Callable[[str], object] = importlib.import_module) -> Check:
    """Check that a package that a run needs is installed, new enough and importable."""
    install = f'pip install "{wanted.text}"'
    version = installed(wanted.name)
    if version is None:
        return _broken(wanted, "not installed", install)
    if older(version, wanted.least):
        text = f"{version} is too old; {wanted.least} or later is needed"
        return _broken(wanted, text, f'pip install --upgrade "{wanted.text}"')
    try:
        load(wanted.name.replace("-", "_"))
    except Exception as error:  # a broken package may raise anything
        text = f"{version} cannot be imported ({type(error).__name__}: {error})"
        fix = f'pip install --force-reinstall "{wanted.text}"'
        return _broken(wanted, " ".join(text.split()), fix)
    return Check(TOPIC, wanted.name, OK, version, required=True)


def optional(wanted: Requirement) -> Check:
    """Check that a package that adds a feature is installed and new enough."""
    feature = _EXTRAS.get(wanted.extra or "", "")
    version = installed(wanted.name)
    if version is None:
        text = f"not installed; needed for {feature}"
        return Check(TOPIC, wanted.name, NOTE, text, f'pip install "{wanted.text}"')
    if older(version, wanted.least):
        text = f"{version} is too old; {wanted.least} or later is needed for {feature}"
        return Check(TOPIC, wanted.name, NOTE, text, f'pip install --upgrade "{wanted.text}"')
    return Check(TOPIC, wanted.name, OK, f"{version}, for {feature}")


def _broken(wanted: Requirement, found: str, fix: str) -> Check:
    return Check(TOPIC, wanted.name, PROBLEM, found, fix, required=True)


def installed(name: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def older(version: str, least: str) -> bool:
    """Return whether a version is below another, by their leading numbers."""
    return bool(least) and _numbers(version) < _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:  # 2.0 is 2
        numbers.pop()
    return tuple(numbers)


def _declared() -> tuple[str, list[Requirement]]:
    """Return the Python versions and packages that the installation or a checkout requires."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():  # newer than the metadata of an editable installation
        told = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if told.get("name") == _NAME:
            extras = told.get("optional-dependencies", {})
            listed: list[tuple[str, str | None]] = [
                (text, None) for text in told.get("dependencies", [])
            ]
            listed += [(text, extra) for extra in extras for text in extras[extra]]
            return told.get("requires-python", ""), _parsed(listed)
    try:
        found = metadata.metadata(_NAME)
    except metadata.PackageNotFoundError:
        return "", []
    listed = []
    for text in metadata.requires(_NAME) or []:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", text)
        listed.append((text, extra[1] if extra else None))
    return found["Requires-Python"] or "", _parsed(listed)


def _parsed(listed: Iterable[tuple[str, str | None]]) -> list[Requirement]:
    found = []
    for text, extra in listed:
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*(?:.*?>=\s*([\d.]+))?", text.partition(";")[0])
        if match:
            found.append(Requirement(match[1], match[2] or "", extra))
    return found
