"""The recipe and the environments for conda ask for what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from repository import ROOT

import pdex_gpu

CONDA = ROOT / "conda"
#: Packages that conda-forge splits further than PyPI does.
RENAMED = {"matplotlib": "matplotlib-base"}

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def asked(*extras: str) -> dict[str, SpecifierSet]:
    entries = [*PROJECT["dependencies"]]
    for extra in extras:
        entries += PROJECT["optional-dependencies"][extra]
    found = [Requirement(entry) for entry in entries]
    return {RENAMED.get(one.name, one.name): one.specifier for one in found}


def listed(lines: list[Any]) -> dict[str, SpecifierSet]:
    """Packages and versions of lines such as ``numpy >=2.1``."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([\w-]+) ?([<>=].*)?", line)
        assert match is not None, line
        found[match[1]] = SpecifierSet(match[2] or "")
    return found


def test_the_recipe_is_that_of_the_project():
    text = (CONDA / "recipe.yaml").read_text("utf-8")
    context = yaml.safe_load(text)["context"]
    for name, value in context.items():
        text = text.replace("${{ " + name + " }}", value)
    recipe = yaml.safe_load(text)
    assert recipe["schema_version"] == 1
    assert recipe["package"] == {"name": PROJECT["name"], "version": pdex_gpu.__version__}
    assert recipe["source"]["url"].endswith(f"/pdex_gpu-{pdex_gpu.__version__}.tar.gz")
    run = listed(recipe["requirements"]["run"])
    assert run.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert run == asked()
    assert recipe["build"]["noarch"] == "python"
    scripts = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    about = recipe["about"]
    assert about["summary"] == PROJECT["description"]
    assert (about["license"], [about["license_file"]]) == (
        PROJECT["license"], PROJECT["license-files"],
    )  # fmt: skip
    links = PROJECT["urls"]
    assert (about["homepage"], about["repository"]) == (links["Homepage"], links["Source"])
    assert about["documentation"] == links["Documentation"]


@pytest.mark.parametrize(
    ("name", "more"),
    [("environment", {}), ("environment-cuda", {"cupy": ">=14.0", "cuda-version": ">=12"})],
)
def test_environments_hold_what_plots_and_frames_need(name: str, more: dict[str, str]):
    found = yaml.safe_load((CONDA / f"{name}.yml").read_text("utf-8"))
    assert found["channels"] == ["conda-forge"]
    *lines, from_index = found["dependencies"]
    wanted = asked("plot", "polars")
    there = listed(lines) | listed(from_index["pip"])
    assert there.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert there.pop("pip") == SpecifierSet()
    assert there == wanted | {package: SpecifierSet(least) for package, least in more.items()}
    for extra in ("cuda12", "cuda13"):
        (cupy,) = map(Requirement, PROJECT["optional-dependencies"][extra])
        assert "cupy" not in more or SpecifierSet(more["cupy"]) == cupy.specifier


def test_the_builder_takes_the_recipe():
    """rattler-build, which conda-forge builds with, parses and renders it; it needs no network."""
    rattler = pytest.importorskip("rattler_build", reason="needs py-rattler-build")
    text = (CONDA / "recipe.yaml").read_text("utf-8")
    (variant,) = rattler.Stage0Recipe.from_yaml(text).render(rattler.VariantConfig())
    made = variant.recipe.to_dict()
    assert made["package"] == {"name": PROJECT["name"], "version": pdex_gpu.__version__}
    assert listed(made["requirements"]["run"]).keys() == {"python", *asked()}
    for right, wrong in (("noarch: python", "noarch: pithon"), ("  run:", "  runs:")):
        with pytest.raises(rattler.RattlerBuildError):
            rattler.Stage0Recipe.from_yaml(text.replace(right, wrong))
