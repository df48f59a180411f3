"""Which change makes which stages stale: DVC's own answer for every module, compared with docs/invalidation.md."""

import ast
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import networkx
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.config import params
from stages.config.schema import Params
from stages.plots import _registry
from stages.runtime import paths
from tests.conftest import ROOT, SAMPLE, copy_work_tree, write_params

ROW = re.compile(r"^\| `(stages/[^`]+)` \| ([^|]+) \|", re.MULTILINE)
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "stages").rglob("*.py"))
# What moves, announces or checks a result, and runs it elsewhere, but does not change it
NO_RESULT = (
    *("stages/config/", "stages/runtime/", "stages/tracking/", "stages/cluster/", "stages/data/real/"),
    "stages/data/examples.py",
)


COMMON = ("optimizer", "schedule", "loss", "learning_rate", "batch_size", "epochs", "compute_dtype")
FOUND_BY_NAME = [
    ("train", "models"),
    ("extract", "backbones"),
    ("preprocess", "data/formats"),
]


def test_every_param_is_in_the_documented_table() -> None:
    text = (ROOT / "docs/invalidation.md").read_text(encoding="utf-8").partition("## Changed params")[2]
    keys = " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))
    assert set(re.findall("`([a-z_]+)", keys)) == set(Params.model_fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("invalidation")
    copy_work_tree(made)
    return made


@pytest.fixture(scope="module")
def repo(folder: Path) -> Iterator[Repo]:
    """A copy of the work tree whose recorded hashes of code are those of now."""
    with _recorded(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def extended(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """The same with an audit, a network, and a model on it."""

    def change(values: Any) -> None:
        values["audits"]["mnist"] = {"features": "mnist", "similarity": 0.8, "ratio": 0.35, "folds": 5}
        values["pretrained"]["network"] = {"head": "imagenette_vgg16", "backbone": "vgg16", "dataset": "imagenette"}
        common = {key: values["models"]["imagenette_vgg16"][key] for key in COMMON}
        values["models"]["tuned"] = {"dataset": "network", "architecture": "pretrained", **common}

    copy = tmp_path_factory.mktemp("extended")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    write_params(copy, change)
    with _recorded(copy) as opened:
        yield opened


def stale_after_comment(repo: Repo, module: str) -> set[str]:
    """The stages that a comment at the end of `module` makes stale, and all stages after them."""
    path = Path(repo.root_dir) / module
    before = path.read_bytes()
    path.write_bytes(before + b"# a comment\n")
    try:
        # The other deps did not change; DVC would take a minute to say so for every module. Many stages share a dep
        # and its recorded hash.
        deps = {dep.def_path: dep for stage in repo.index.stages for dep in stage.deps}
        stale = {path for path, dep in deps.items() if _covers(path, module) and dep.workspace_status()}
        changed = [stage for stage in repo.index.stages if any(dep.def_path in stale for dep in stage.deps)]
    finally:
        path.write_bytes(before)
    # DVC's graph points from a stage to those it depends on.
    after = [found for stage in changed for found in networkx.ancestors(repo.index.graph, stage)]
    return {stage.name for stage in [*changed, *after]}


def test_stale_stages_after_comment_in_each_module_match_the_documented_table(repo: Repo) -> None:
    table = ROW.findall((ROOT / "docs/invalidation.md").read_text(encoding="utf-8"))
    actual = {module: _kinds(stale_after_comment(repo, module)) for module in MODULES}
    documented = {module: _documented(table, module) for module in MODULES}
    assert actual == documented


def test_change_of_auditing_code_or_of_what_it_reads_makes_audits_stale(extended: Repo) -> None:
    for module in ("stages/auditing/duplicates.py", "stages/audit.py"):
        assert stale_after_comment(extended, module) == {"audit@mnist", "report"}, module
    for module in ("stages/data/reader.py", "stages/data/formats/idx.py", "stages/runtime/numerics.py"):
        assert "audit@mnist" in stale_after_comment(extended, module), module
    assert "audit@mnist" not in stale_after_comment(extended, "stages/models/dense.py")


def test_change_of_what_joins_a_network_makes_it_and_the_model_on_it_stale(extended: Repo) -> None:
    own = {"train@tuned", "evaluate@tuned", "report"}
    assert stale_after_comment(extended, "stages/models/pretrained.py") == own
    for module in ("stages/join.py", "stages/inference/backbone.py", "stages/inference/locate.py"):
        assert stale_after_comment(extended, module) == {"join@network", *own}, module
    assert {"join@network", *own} < stale_after_comment(extended, "stages/models/dense.py")  # of its head


def test_comment_in_an_architecture_makes_only_the_models_that_use_it_stale(repo: Repo) -> None:
    models = params.load(SAMPLE / "params.yaml").models
    for module in (module for module in MODULES if module.startswith("stages/models/")):
        users = {f"train@{name}" for name, model in models.items() if model.architecture == Path(module).stem}
        stale = stale_after_comment(repo, module)
        assert {name for name in stale if name.startswith("train@")} == users, module


def test_every_module_that_can_change_a_result_is_a_dep_of_the_stage_that_imports_it() -> None:
    """A missing dep is a result that stays when it should not."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for name, entry in stages.items():
        stage = entry.get("do", entry)
        module = Path(*re.findall(r"stages\.\w+", stage["cmd"])[0].split(".")).with_suffix(".py")
        deps = [str(dep) for dep in stage["deps"]]
        if name == "check" or name.startswith("download"):
            continue  # they compute nothing: the hash of a file, not the code that fetches it, says what it contains
        missing = {
            path
            for path in _imports(module)
            if not path.startswith(NO_RESULT) and not any(_covers(dep, path) for dep in deps)
        }
        assert not missing, name


@pytest.mark.parametrize(("stage", "package"), FOUND_BY_NAME)
def test_part_found_by_name_imports_nothing_that_its_stage_does_not_depend_on(stage: str, package: str) -> None:
    """A dep such as stages/models/${item.architecture}.py is the part alone, not what it shares with another part."""
    deps = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["do"]["deps"]
    fixed = [str(dep) for dep in deps if "$" not in str(dep)]
    for part in (ROOT / "stages").joinpath(package).glob("[a-z]*.py"):
        own = str(part.relative_to(ROOT))
        missing = {
            path
            for path in _imports(Path(own))
            if path != own and not path.startswith(NO_RESULT) and not any(_covers(dep, path) for dep in fixed)
        }
        assert not missing, own


def test_table_of_every_plot_is_an_output_of_evaluate() -> None:
    entries = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["evaluate"]["do"]["plots"]
    declared = {path for entry in entries for path in entry}
    tables = {name for name, plot in _registry.all_plots().items() if hasattr(plot, "table")}
    assert declared == {str(paths.plot(name, "${key}")) for name in tables}


def _recorded(folder: Path) -> Repo:
    """The repository in a folder, where DVC takes the hashes of code of now for those of the last run."""
    opened = Repo(folder)
    for stage in opened.index.stages:
        for dep in stage.deps:
            if str(dep.def_path).startswith("stages/"):
                dep.save()
    return opened


def _kinds(stages: set[str]) -> frozenset[str]:
    return frozenset(stage.partition("@")[0] for stage in stages)


def _documented(table: list[tuple[str, str]], module: str) -> frozenset[str]:
    """The first row whose path is the module or a pattern for it; an exact path before any pattern."""
    rows = [cells for path, cells in table if path == module] or [
        cells for path, cells in table if fnmatch(module, path)
    ]
    assert rows, f"{module}: not in docs/invalidation.md"
    return frozenset(filter(None, (word.strip() for word in rows[0].split(",")))) - {"none"}


def _covers(dep: str, path: str) -> bool:
    """Whether a dep of dvc.yaml, in which ${…} stands for any name, is the module or a folder that holds it."""
    pattern = re.sub(r"\$\{[^}]*\}", "*", dep)
    return (pattern != "*" and fnmatch(path, pattern)) or path.startswith(f"{dep}/")


def _imports(module: Path) -> set[str]:
    """The module and all modules of stages/ that it imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if str(path) in found:
            continue
        found.add(str(path))
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            files = [Path(*name.split(".")).with_suffix(".py") for name in names if name.startswith("stages")]
            waiting += [file for file in files if (ROOT / file).exists()]
    return found
