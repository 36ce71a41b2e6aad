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


def called(step: dict[str, str]) -> list[str]:
    """The targets of the Makefile that a step calls."""
    found = re.match(r"make((?: [a-z-]+)+)", step.get("run", ""))
    return found[1].split() if found else []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_targets_exist(workflow):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"test", "test-gpu"} <= targets
    for step in steps(workflow):
        assert set(called(step)) <= targets
        assert ("run" in step) != ("uses" in step)


def test_every_change_is_tested_as_make_test_all_does():
    (line,) = re.findall(r"^test-all: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    run = [target for step in steps(ROOT / ".github/workflows/test.yml") for target in called(step)]
    assert sorted(run) == sorted(line.split())


def test_every_mark_is_described_and_chosen_by_a_target():
    marks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    names = {re.split(r"\W", mark)[0] for mark in marks["markers"]}
    makefile = (ROOT / "Makefile").read_text()
    (left_out,) = re.findall(r"^LEFT_OUT := (.*)$", makefile, re.M)
    chosen = set(re.findall(r"-m \"?(\w+)", makefile)) - {"pip", "pytest", "venv", "sphinx", "not"}
    assert chosen - {"gpu"} == set(left_out.split(" or ")) <= names  # gpu tests skip themselves
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(f"`{name}" in guide for name in names - {"real_data"})


def test_every_python_that_is_supported_is_tested():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [re.fullmatch(r".*Python :: (3\.\d+)", line) for line in project["classifiers"]]
    supported = [found[1] for found in named if found]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert release["jobs"]["smoke"]["strategy"]["matrix"]["python"] == supported


GPU = ROOT / ".github" / "workflows" / "gpu.yml"


def test_changes_of_strangers_do_not_reach_our_runner():
    job = yaml.safe_load(GPU.read_text())["jobs"]["gpu"]
    assert "self-hosted" in job["runs-on"]
    assert "head.repo.full_name == github.repository" in job["if"]


def test_without_a_runner_nothing_waits_for_a_gpu():
    job = yaml.safe_load(GPU.read_text())["jobs"]["gpu"]
    assert job["runs-on"] == ["self-hosted", "${{ vars.GPU_RUNNER }}"]
    assert job["if"].startswith("vars.GPU_RUNNER != '' &&")


def test_the_gpu_runs_what_make_gpu_first_runs():
    (line,) = re.findall(r"^gpu-first:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.M)
    script = line.replace("$(BIN)", ".venv/bin")
    (run,) = (step["run"] for step in steps(GPU) if "gpu_first.py" in step.get("run", ""))
    assert run.startswith(f"{script} --record ")
    text = (ROOT / "benchmarks" / "gpu_first.py").read_text()
    (numbers,) = re.findall(r"NOT_COMPLETE = ([\d, ]+)$", text, re.M)
    assert run.split()[-1] == numbers.split()[-1]
    shown = next(step for step in steps(GPU) if step.get("name") == "Show what held")
    assert "record.md" in shown["run"]
    assert shown["if"] == "always()"


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_the_machine(form):
    found = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= found.keys()
    texts = [part["attributes"]["description"] for part in found["body"]]
    assert any("`pdex-gpu doctor --json`" in text for text in texts)
    assert all(part["validations"]["required"] for part in found["body"])
