"""What can be known of the workflows without GitHub."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
LEAST = {"check.yml": {"contents": "read"}, "comment.yml": {}}


def load(file: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(file.read_text())


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in load(file)["jobs"].values() for step in job["steps"]]


def test_each_workflow_is_known_here() -> None:
    assert [file.name for file in FILES] == list(LEAST)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_and_say_which_version(file: Path) -> None:
    used = re.findall(r"^.*\buses: (.*)$", file.read_text(), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_job_may_do_no_more_than_it_must(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == LEAST[file.name]
    for name, job in workflow["jobs"].items():
        allowed = job.get("permissions", {})
        assert name == "comment" or "write" not in allowed.values()
        assert job["timeout-minutes"] <= 90
    assert all(
        step["with"]["persist-credentials"] is False for step in steps(file) if "checkout" in step.get("uses", "")
    )
    assert "secrets." not in file.read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_from_outside_is_part_of_a_command(file: Path) -> None:
    """A title or the name of a branch can be a command: values reach commands through the environment alone."""
    assert all("${{" not in step.get("run", "") for step in steps(file))


def test_the_job_that_may_write_runs_nothing_of_the_pull_request() -> None:
    workflow = load(ROOT / ".github/workflows/comment.yml")
    assert list(workflow["on"]) == ["workflow_run"]
    assert workflow["on"]["workflow_run"]["workflows"] == [load(ROOT / ".github/workflows/check.yml")["name"]]
    checkout = next(
        step for step in steps(ROOT / ".github/workflows/comment.yml") if "checkout" in step.get("uses", "")
    )
    assert checkout["with"]["ref"] == "${{ github.event.repository.default_branch }}"
    assert workflow["jobs"]["comment"]["permissions"] == {
        "actions": "read",
        "contents": "read",
        "pull-requests": "write",
    }


def test_what_a_workflow_runs_is_in_the_repository() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [step["run"] for file in FILES for step in steps(file) if "run" in step]
    made = [target for command in commands for target in re.findall(r"\bmake (?:--silent )?(\w+)", command)]
    assert set(made) == {"check", "test", "pull", "repro", "plots", "review", "gate"}
    assert set(made) <= set(targets)
    modules = [module for command in commands for module in re.findall(r"python3 -m ([\w.]+)", command)]
    assert modules == ["tools.comment"]
    assert all((ROOT / Path(*module.split("."))).with_suffix(".py").exists() for module in modules)
