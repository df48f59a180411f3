"""The documents: links, names of make targets, and the examples of docs/extending.md."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, SAMPLE, run

CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\]\(([^()\s]+)\)")
# A path in backticks, a blank line, and the content of that file
MODULE = re.compile(r"^`(stages/\S+\.py)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """All Markdown files that are in Git, or would be added."""
    listed = run(ROOT, "git", "ls-files", "-co", "--exclude-standard", "*.md").stdout.split()
    return [ROOT / name for name in listed if (ROOT / name).exists()]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a file."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if re.match(r"[a-z]+:", link):
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_make_targets_and_variables_named_in_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)) | {"UPGRADE"}
    for path in documents():
        for command in re.findall(r"(?:^|[`$&] ?)make ([^`#&|\n]*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            words = re.sub(r'=("[^"]*"|\S*)', "= ", command.partition("  ")[0]).split()
            wrong = [word for word in words if not word.startswith("-") and word.rstrip("=") not in targets | variables]
            assert wrong == [], f"{path.name}: make {command}"


def test_commands_in_documents_work_on_macos() -> None:
    """Whose `sed -i` takes the next argument for a suffix."""
    assert [path.name for path in documents() if re.search(r"\bsed -i", path.read_text(encoding="utf-8"))] == []


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every example of docs/extending.md."""
    folder = tmp_path_factory.mktemp("extended")
    for part in ("stages", "tools"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    modules = dict(MODULE.findall(text))
    for path, content in modules.items():
        if not (folder / path).exists():  # a reader may have used the example under its own name
            (folder / path).write_text(content, encoding="utf-8")
    yaml = YAML()
    yaml.width = 4096
    values = yaml.load(SAMPLE / "params.yaml")
    for language, content in BLOCK.findall(text):
        if language == "python" and content not in modules.values():
            metrics = folder / "stages/evaluation/metrics.py"
            present = metrics.read_text(encoding="utf-8")
            metrics.write_text(present if content in present else f"{present}\n\n{content}", encoding="utf-8")
        if language == "yaml" and not content.startswith(" "):
            for section, entries in yaml.load(content).items():
                values[section].update(entries)
    yaml.dump(values, folder / "params.yaml")
    return folder


def yaml_models(folder: Path) -> Iterator[Any]:
    yield from YAML(typ="safe").load(folder / "params.yaml")["models"].values()


def test_examples_of_extending_are_valid_configuration(extended: Path) -> None:
    done = run(extended, "python", "-m", "stages.check")
    assert (done.returncode, done.stderr) == (0, "")
    assert any(model["architecture"] == "pooled_cnn" for model in yaml_models(extended))


def test_examples_of_extending_pass_style_checks(extended: Path) -> None:
    names = [path for path, _ in MODULE.findall((ROOT / "docs/extending.md").read_text(encoding="utf-8"))]
    config = ["--config", str(ROOT / "pyproject.toml")]
    for command in (["check"], ["format", "--check"]):
        done = run(extended, "ruff", *command, *config, *names)
        assert done.returncode == 0, done.stdout


def test_examples_of_extending_are_found_by_name(extended: Path) -> None:
    script = """
from stages.config.plugins import load_plugin
from stages.evaluation.metrics import METRICS
from stages.plots import _registry
rates = load_plugin("training.schedules", "warmup").build(0.1, 20, 1, warmup_fraction=0.1)
print(METRICS["balanced_accuracy"].column, "confidence" in _registry.all_plots())
print(rates.dtype, rates.shape, rates.argmax())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=extended, capture_output=True, encoding="utf-8")
    assert done.stdout == "True True\nfloat32 (20,) 2\n", done.stderr


def test_packages_import_only_what_contributing_allows() -> None:
    rows = re.findall(
        r"^\| (`stages/.+?) \| .+ \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    checked = 0
    for packages, allowed in rows:
        if "everything" in allowed:
            continue
        for package in re.findall(r"`stages/(\w+)`", packages):
            known = {package, *re.findall(r"`(\w+)`", allowed)}
            for path in (ROOT / "stages" / package).rglob("*.py"):
                imported = re.findall(
                    r"^\s*(?:from|import) stages\.?(\w*)", path.read_text(encoding="utf-8"), re.MULTILINE
                )
                assert set(imported) <= known, path
                checked += 1
    assert checked > 50
