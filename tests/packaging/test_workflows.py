"""Workflows and issue forms are well-formed, and call what the Makefile has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from repository import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="not run from a checkout")


def steps(workflow: Path) -> list[dict[str, str]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_targets_exist(workflow):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"test", "test-gpu"} <= targets
    for step in steps(workflow):
        called = re.match(r"make((?: [a-z-]+)+)", step.get("run", ""))
        assert not called or set(called[1].split()) <= targets
        assert ("run" in step) != ("uses" in step)


def test_every_python_that_is_supported_is_tested():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [re.fullmatch(r".*Python :: (3\.\d+)", line) for line in project["classifiers"]]
    supported = [found[1] for found in named if found]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported


def test_changes_of_strangers_do_not_reach_our_runner():
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text())["jobs"]["gpu"]
    assert "self-hosted" in job["runs-on"]
    assert "head.repo.full_name == github.repository" in job["if"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_the_machine(form):
    found = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= found.keys()
    texts = [part["attributes"]["description"] for part in found["body"]]
    assert any("`pdex-gpu doctor --json`" in text for text in texts)
    assert all(part["validations"]["required"] for part in found["body"])
