"""The workflows without GitHub: their schema, their permissions, and their commands on a base and a pull request."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, CopyFolder, commit, run
from tests.tools.fake_pipeline import link_environment, write_fake_params

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
LEAST = {"check.yml": {"contents": "read"}}


def load(file: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in load(file)["jobs"].values() for step in job["steps"]]


def test_workflows_are_the_known_ones() -> None:
    assert [file.name for file in FILES] == list(LEAST)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_with_their_version(file: Path) -> None:
    used = re.findall(r"^.*\buses: (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_jobs_have_the_least_permissions(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == LEAST[file.name]
    for name, job in workflow["jobs"].items():
        allowed = job.get("permissions", {})
        assert "write" not in allowed.values(), name
        assert job["timeout-minutes"] <= 90
    assert all(
        step["with"]["persist-credentials"] is False for step in steps(file) if "checkout" in step.get("uses", "")
    )
    assert "secrets." not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_commands_contain_no_expressions(file: Path) -> None:
    """A title or the name of a branch could be a command: values reach commands through the environment alone."""
    assert all("${{" not in step.get("run", "") for step in steps(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_workflows_follow_their_schema(file: Path) -> None:
    done = run(ROOT, sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_base_and_pull_request_on_a_runner(copy_fake_repository: CopyFolder, tmp_path: Path) -> None:
    """The runner is another machine than the author's. The pull request makes one model worse and loosens its gate."""
    origin = copy_fake_repository(tmp_path / "origin")

    def change(values: Any) -> None:
        values["models"]["mnist_cnn"]["learning_rate"] = 0.006
        values["gates"]["mnist_cnn"] = {"min_accuracy": 0.1}

    write_fake_params(origin, change)
    assert run(origin, "git", "checkout", "-q", "-b", "topic").returncode == 0
    commit(origin, "topic")
    runner = tmp_path / "runner"
    assert run(tmp_path, "git", "clone", "-q", "-b", "topic", str(origin), str(runner)).returncode == 0
    link_environment(runner)
    settings = {"BASE": "origin/main", "FAKE_MACHINE": "b"}
    settings["GITHUB_OUTPUT"] = str(tmp_path / "GITHUB_OUTPUT")
    codes = {}
    for job in ("review", "gate"):
        settings["GITHUB_STEP_SUMMARY"] = str(tmp_path / f"{job}.md")
        for step in load(ROOT / ".github/workflows/check.yml")["jobs"][job]["steps"]:
            if "run" in step:
                done = run(runner, "bash", "-eo", "pipefail", "-c", step["run"], **settings)
                codes[step["run"]] = done.returncode
                may_fail = "make --silent real" in step["run"] or step["run"] == "git diff --exit-code"
                assert done.returncode == 0 or may_fail, done.stdout + done.stderr
    assert codes["git diff --exit-code"] == 1  # what this runner computed is not what the topic has committed
    assert {command.split(" >> ")[0]: code for command, code in codes.items() if command.startswith("make")} == {
        "make repro": 0,
        "make base": 0,
        "make plots": 0,
        "make --silent review": 0,
        "make --silent real": 2,
    }
    assert re.fullmatch(
        r"machine=[0-9a-f]{16}\narchives=[0-9a-f]{16}\n" * 2, (tmp_path / "GITHUB_OUTPUT").read_text(encoding="utf-8")
    )
    review, real = ((tmp_path / f"{name}.md").read_text(encoding="utf-8") for name in ("review", "gate"))
    for text in (review, real):
        assert re.search(r"^\| `mnist_cnn` .*\*\*worse\*\*", text, re.MULTILINE), text
        assert "| `mnist_dense`" not in text
        assert "Both sides were produced on: processor b." in text
    assert "On synthetic data" in review and "On synthetic data" not in real
    gate = real[real.index("## Gate") :]
    assert "mnist_cnn: validation accuracy 39.25% (" in gate and "is below min_accuracy, 85.00%" in gate
    assert "gate failed; judged: fashion_mnist_lenet, mnist_cnn, mnist_dense; " in gate
    assert "limits of origin/main apply, the workspace has others: mnist_cnn" in gate
    assert run(runner, "git", "diff", "--stat", "params.yaml").stdout == ""
    hostile = run(runner, "make", "--silent", "review", BASE="main;touch${IFS}here")
    assert hostile.returncode != 0
    assert not (runner / "here").exists()
