"""params.yaml: valid files load, every other one is a one-line error."""

import copy
import difflib
import inspect
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from ruamel.yaml import YAML

from stages.config import params
from stages.config import plugins as parts
from stages.config.plugins import load_plugin
from stages.config.references import OPTIONAL_PARTS, PART_LISTS, PARTS
from stages.config.schema import Params
from stages.runtime.errors import UserError
from tests.conftest import ROOT, SAMPLE, only, write_params

REAL = YAML(typ="safe", pure=True).load(SAMPLE / "params.yaml")
HALVES = {"test_fraction": 0.5, "validation_fraction": 0.5}
AUDIT = {"similarity": 0.8, "ratio": 0.35, "folds": 5}
MIRRORS = ["file:///x#md5=" + "0" * 32]


def test_params_file_of_repository_is_valid() -> None:
    values = params.load(SAMPLE / "params.yaml")
    assert values.datasets
    assert values.models


def search(**space: Any) -> Callable[[Any], object]:
    """Give mnist_dense this search space; `optimizer__name` is the key optimizer.name."""
    return lambda v: v.update(search={"mnist_dense": {key.replace("__", "."): value for key, value in space.items()}})


INVALID: list[tuple[Callable[[Any], object], str]] = [
    (lambda v: v.update(search={"mnist": {"epochs": {"low": 1, "high": 2}}}), "search.mnist: there is no 'mnist'"),
    (search(learning_rat={"low": 0.1, "high": 1.0}), "search.mnist_dense: learning_rat: unknown key with value 0.1"),
    (search(learning_rate={"low": -0.1, "high": 1.0}), "search.mnist_dense: learning_rate: -0.1: "),
    (search(learning_rate={"low": 1.0, "high": 0.1}), "search.mnist_dense.learning_rate: {'high': 0.1, 'low': 1.0}: "),
    (search(learning_rate={"low": 1, "choices": [1, 2]}), "search.mnist_dense.learning_rate: {'choices': [1, 2], 'l"),
    (search(batch_size={"choices": [8]}), "search.mnist_dense.batch_size.choices: [8]: "),
    (search(optimizer__name={"choices": ["adam", "adan"]}), "search.mnist_dense: optimizer.name: there is no 'adan'"),
    (search(augment__0__factor={"choices": [1, 2]}), "search.mnist_dense: the model has no 'augment' with keys; "),
    (
        lambda v: v.update(search={"cifar10_cnn_augmented": {"augment.2.factor": {"low": 0.1, "high": 2.0}}}),
        "search.cifar10_cnn_augmented: augment.2.factor: 2.0: ",
    ),
    (
        lambda v: v.update(search={"cifar10_cnn_augmented": {"augment.4.factor": {"low": 0.1, "high": 0.2}}}),
        "search.cifar10_cnn_augmented: the model has no 'augment.4' with keys; allowed: 0, 1, 2, 3",
    ),
    (
        lambda v: v["datasets"]["mnist"].update(classes=["+", *"123456789"]),
        "datasets.mnist.classes: ['+', '1', '2', '3', '4', '5', ...]: the class name '+' starts like a formula",
    ),
    (lambda v: v.update(seed=-1), "seed: -1: "),
    (lambda v: v.update(sed=1), "sed: unknown key with value 1; did you mean 'seed'?"),
    (lambda v: v.pop("train"), "train: missing"),
    (
        lambda v: v["models"]["mnist_cnn"].update(optimiser=v["models"]["mnist_cnn"].pop("optimizer")),
        "models.mnist_cnn.optimizer: missing; rename 'optimiser', or add it",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(augmentation={}),
        "models.mnist_cnn.augmentation: unknown key with value {}; did you mean 'augment'?",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(augment={"rotation": {"factor": 0.1}}),
        "models.mnist_cnn.augment: {'rotation': {'factor': 0.1}}: it should be a list of modules and their options, ",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(optimizer="adam"),
        "models.mnist_cnn.optimizer: 'adam': it should be a mapping, such as {name: ...}",
    ),
    (
        lambda v: v["models"]["mnist_cnn"]["optimizer"].update(learning_rate=0.1),
        "models.mnist_cnn.optimizer.learning_rate: no option, as `build` in stages/training/optimizers/adam.py has it "
        "before the `*`: the pipeline gives its value; remove it here, or move it behind the `*` there if it is an "
        "option",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(architecture="CNN"),
        "models.mnist_cnn.architecture: 'CNN': a name is of lower-case letters, digits and _, and begins with a letter",
    ),
    (
        lambda v: v["datasets"]["mnist"].update(synthetic=True),
        "datasets.mnist.synthetic: True: it should be a mapping, such as {key: ...}",
    ),
    (
        lambda v: v["datasets"]["mnist"].update(classes=[0, 1]),
        "datasets.mnist.classes.0: 0: input should be a valid string; put",
    ),
    (
        lambda v: v["features"]["imagenette_vgg16"].update(backbone="resnet50"),
        "weights.resnet50: missing: features.imagenette_vgg16 needs it; add `resnet50: {}`",
    ),
    (lambda v: v["train"].update(epochs="25"), "train.epochs: '25': "),
    (lambda v: v["train"].update(epochs=True), "train.epochs: True: "),
    (lambda v: v["train"].update(epoch=25), "train.epoch: unknown key with value 25; did you mean 'epochs'?"),
    (lambda v: v["train"].update(validation_fraction=1.0), "train.validation_fraction: 1.0: "),
    (lambda v: v["train"].update(validation_fraction=-0.1), "train.validation_fraction: -0.1: "),
    (lambda v: v["train"].update(learning_rate=float("nan")), "train.learning_rate: nan: "),
    (lambda v: v["models"]["mnist_cnn"].update(dataset="mnits"), "models.mnist_cnn.dataset: there is no 'mnits'"),
    (
        lambda v: v["models"]["imagenette_128"].update(
            averaging={"name": "lookahead", "every": 2, "decay": 0.5, "keep_slow": True}, patience=2
        ),
        "models.imagenette_128.averaging.keep_slow: only the last epoch ends with the slow weights; remove it, or pat",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(architecture="cn"),
        "models.mnist_cnn.architecture: there is no 'cn'",
    ),
    (lambda v: v["models"]["mnist_cnn"].pop("dataset"), "models.mnist_cnn.dataset: missing"),
    (lambda v: v["models"]["mnist_cnn"].update(filters=[0]), "models.mnist_cnn.filters.0: 0: "),
    (
        lambda v: v["models"]["mnist_cnn"]["optimizer"].update(name="adan"),
        "models.mnist_cnn.optimizer.name: there is no 'adan'; did you mean 'adam'?",
    ),
    (
        lambda v: v["models"]["mnist_cnn"]["optimizer"].update(momentun=0.9),
        "models.mnist_cnn.optimizer.momentun: unknown key with value 0.9",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(augment=["rotation"]),
        "models.mnist_cnn.augment.0: 'rotation': it should be a mapping, such as {name: ...}",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(augment=[{"factor": 0.1}]),
        "models.mnist_cnn.augment.0.name: missing; add it",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(augment=[{"name": "zoom", "factor": 0.1}, {"name": "rotatoin"}]),
        "models.mnist_cnn.augment.1.name: there is no 'rotatoin'; did you mean 'rotation'?",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(augment=[{"name": "rotation", "factor": 2.0}]),
        "models.mnist_cnn.augment.0.factor: 2.0: ",
    ),
    (lambda v: v["not_in_pretraining"].update(cifar=1), "not_in_pretraining.cifar: 1: "),
    (
        lambda v: v["not_in_pretraining"].update(cifar={"files": "a*", "reason": "b"}),
        "not_in_pretraining.cifar: there is no 'cifar'; did you mean 'cifar10'?",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(paddin="same"),
        "models.mnist_cnn.paddin: unknown key with value 'same'",
    ),
    (
        lambda v: v["models"]["fashion_mnist_lenet"].update(units=[3]),
        "models.fashion_mnist_lenet.units: unknown key",
    ),
    (
        lambda v: v["features"]["imagenette_vgg16"].update(backbone="vgg"),
        "features.imagenette_vgg16.backbone: there",
    ),
    (
        lambda v: v["models"]["imagenette_vgg16"].update(image_size=64),
        "models.imagenette_vgg16.image_size: imagenette_vgg16 holds features, not images",
    ),
    (lambda v: v["datasets"]["mnist"].update(classes=["a", "a"]), "datasets.mnist.classes"),
    (lambda v: v["datasets"]["mnist"].update(format="idxx"), "datasets.mnist.format: there is no 'idxx'"),
    (
        lambda v: v["datasets"].update(vgg16=v["datasets"]["mnist"]),
        "weights.vgg16: the name is taken by datasets.vgg16",
    ),
    (
        lambda v: v.update(folders={"mnist": {"path": "x", "classes": ["a", "b"]}}),
        "folders.mnist: the name is taken by datasets.mnist",
    ),
    (
        lambda v: v.update(folders={"pets": {"path": "x", "classes": ["a", "b"], "table": {"image": "i"}}}),
        "folders.pets.table.label: missing",
    ),
    (
        lambda v: v.update(folders={"p": {"path": "x", "classes": ["a", "b"], **HALVES}}),
        "folders.p.validation_fraction: 0.5: with test_fraction 0.5 it leaves no images to train with",
    ),
    (
        lambda v: v["datasets"]["mnist"].update(format="folder"),
        "datasets.mnist.format: there is no 'folder'",
    ),
    (lambda v: v["datasets"]["mnist"]["classes"].append("a\nb"), "datasets.mnist.classes"),
    (
        lambda v: v["train"].update(distribution="miror"),
        "train.distribution: 'miror': input should be 'mirrored'",
    ),
    (lambda v: v["datasets"]["mnist"]["classes"].append("1 "), "datasets.mnist.classes"),
    (lambda v: v["weights"]["vgg16"]["files"].update(b=MIRRORS), "weights.vgg16.files: "),
    (
        lambda v: v["models"]["mnist_cnn"].update(averaging={"name": "lookahed"}),
        "models.mnist_cnn.averaging.name: there is no 'lookahed'; did you mean 'lookahead'?",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(groups={"a": {"variables": "*", "optimizer": {"name": "muon"}}}),
        "models.mnist_cnn.groups.a.optimizer.momentum: missing",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(groups={"a": {"variable": "*"}}),
        "models.mnist_cnn.groups.a.variable: unknown key with value '*'; did you mean 'variables'?",
    ),
    (
        lambda v: v["models"]["mnist_cnn"].update(initialize=[{"name": "zero"}]),
        "models.mnist_cnn.initialize.0.name: there is no 'zero'",
    ),
    (
        lambda v: v["models"]["imagenette_vgg16"].update(progressive=[{"epochs": 1, "image_size": 64}]),
        "models.imagenette_vgg16.progressive: imagenette_vgg16 holds features, not images; remove it",
    ),
    (lambda v: v["models"]["mnist_cnn"].update(batch_size=10**30), "models.mnist_cnn.batch_size: 1000"),
    (lambda v: v["models"]["mnist_cnn"].update(filters=[10**30]), "models.mnist_cnn.filters.0: 1000"),
    (lambda v: v["models"]["imagenette_cnn"].update(image_size=10**9), "models.imagenette_cnn.image_size: 1000"),
    (
        lambda v: v["datasets"]["mnist"]["files"].update(a=["https://host/a#sha256=12"]),
        "datasets.mnist.files.a.0: 'sha256:12': the URL should end in #sha256= and the 64 digits that `sha256sum",
    ),
    (
        lambda v: v["datasets"]["mnist"]["files"].update(a=["https://host/a"]),
        "datasets.mnist.files.a.0: 'https://host/a': the URL should end in #sha256= and the 64 digits that `sha",
    ),
    (
        lambda v: v["datasets"]["mnist"]["files"].update(a=["ftp" + MIRRORS[0]]),
        "datasets.mnist.files.a.0: 'ftpfile:///x': it should begin with https://, http:// or file://",
    ),
    (
        lambda v: v["datasets"]["mnist"]["files"].update({"../../evil": MIRRORS}),
        "datasets.mnist.files.../../evil",
    ),
]


def test_load_with_invalid_value_names_the_key_in_one_line() -> None:
    for change, expected in INVALID:
        values = copy.deepcopy(REAL)
        change(values)
        with pytest.raises(UserError, match=re.escape(f"params.yaml: {expected}")) as caught:
            params.check(values, Path("params.yaml"))
        assert "\n" not in str(caught.value)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in pairwise("abcdefghijklmnop")
)


OTHER = [
    b"",
    b"[1, 2]",
    b"text",
    b"42",
    b"null",
    b"source: [",
    b"seed: 1\nseed: 2",
    b"\tseed: 1",
    b"seed:\t\t1\n\t- x",
    b"\x00",
    b"\xff\xfe\xfa\x80",
    b"seed: !!python/object/apply:os.system [touch x]",
    b"seed: *nowhere",
    b"? [a, b]\n: 1",
    b"? {a: b}\n: 1",
    b"seed: 2001-99-99",
    b"seed: " + b"9" * 5000,
    b"seed: 0x" + b"f" * 5000,
    b"seed: " + b"[" * 3000,
    b"&a [*a]",
    b"seed: &a {a: *a}",
    b"models: &a {a: *a}",
    LAUGHS.encode(),
    b"models: {m: {" + LAUGHS.replace("\n", ", ").encode() + b"dataset: *p}}",
]


def test_load_of_other_yaml_is_a_one_line_error(tmp_path: Path) -> None:
    for text in OTHER:
        (tmp_path / "params.yaml").write_bytes(text)
        with pytest.raises(UserError, match=r"^\S+params\.yaml: \S.+$") as caught:
            params.load(tmp_path / "params.yaml")
        assert len(str(caught.value)) < 1000


def test_load_resolves_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = (SAMPLE / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("train:\n", "train: &train\n", 1).replace("features:\n", "features:\n  <<: {}\n", 1)
    (tmp_path / "params.yaml").write_text(text.replace("  epochs:\n", "  <<: {epochs: 3}\n", 1), encoding="utf-8")
    assert params.load(tmp_path / "params.yaml").train.epochs == 3
    (tmp_path / "params.yaml").write_text(text.replace("  epochs:\n", "  <<: {epoch: 3}\n", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.epoch: unknown key"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "change", ["seed=43", "train.epochs=3", "models.cifar10_cnn_augmented.augment.2.factor=0.2", "export=[mnist_cnn]"]
)
def test_experiment_changes_one_line_of_params(tmp_path: Path, change: str) -> None:
    """DVC writes the whole file anew, and every list without its comments."""
    (tmp_path / "params.yaml").write_bytes((SAMPLE / "params.yaml").read_bytes())
    apply_overrides(str(tmp_path / "params.yaml"), [change])
    before, after = ((folder / "params.yaml").read_text(encoding="utf-8").splitlines() for folder in (SAMPLE, tmp_path))
    parts = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    assert [(what, last - first) for what, first, last, *_ in parts if what != "equal"] == [("replace", 1)]


def test_module_without_options_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "load_plugin", lambda *_: SimpleNamespace())
    with pytest.raises(UserError, match=r"^stages/training/optimizers/rms\.py: it has no function `build`"):
        parts.check_options("params.yaml: models.m.optimizer", "training.optimizers", "rms", {"rho": 0.9})


PART = """
from __future__ import annotations
from stages.config.types import Fraction
def build(learning_rate: float, *, rho: Fraction) -> keras.Optimizer: ...
"""


def check_rms(monkeypatch: pytest.MonkeyPatch, code: str, options: dict[str, Any]) -> str:
    """What is wrong with options of an optimizer, or an empty string."""
    module = ModuleType("stages.training.optimizers.rms")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        parts.check_options("params.yaml: models.m.optimizer", "training.optimizers", "rms", options)
    except UserError as error:
        return str(error)
    return ""


def test_options_whose_types_are_written_as_text_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_rms(monkeypatch, PART, {"rho": 0.9}) == ""
    found = check_rms(monkeypatch, PART, {"rho": 1.5})
    assert found == "params.yaml: models.m.optimizer.rho: 1.5: input should be less than 1"
    unknown = check_rms(monkeypatch, PART.replace("import Fraction", "import Share"), {"rho": 0.9})
    assert unknown.startswith("stages/training/optimizers/rms.py: build: ") and "Fraction" in unknown
    assert unknown.endswith("; import what the types of options name")


def test_missing_option_is_not_taken_for_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def build(learning_rate: float, *, beta_1: float, beta_2: float) -> None: ..."
    found = check_rms(monkeypatch, code, {"beta_2": 0.9})
    assert found == "params.yaml: models.m.optimizer.beta_1: missing; add it"


TEXT = st.text(max_size=9) | st.sampled_from(["[x]", "f(x)", "a.b", "a\nb", " a", "\x85", "null", "//u:pw@host"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, 1e-320, -0.0])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers() | st.none(), inner, max_size=3),
    max_leaves=5,
)
Place = tuple[Any, ...]  # the keys and indices that lead to a value
QUICK = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where each value in the file stands, the innermost first."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*place, key))
        yield (*place, key)


def at(values: Any, place: Place) -> Any:
    for key in place:
        values = values[key]
    return values


def covers(found: Any, given: Any) -> bool:
    """Whether nothing of what was given is missing or another: what was not given has its default."""
    if isinstance(given, dict):
        return isinstance(found, dict) and all(key in found and covers(found[key], given[key]) for key in given)
    if isinstance(given, list):
        return len(found) == len(given) and all(map(covers, found, given))
    return found == given and isinstance(found, bool) == isinstance(given, bool)


def outcome(values: Any) -> str:
    """The error, or nothing if the values are valid: then all of them count."""
    try:
        found = params.check(values, Path("params.yaml"))
    except UserError as error:
        message = str(error)
        assert re.fullmatch(r"params\.yaml: .+: .+", message), message  # one line
        assert len(message) < 1500
        return message
    assert covers(found.model_dump(), values)
    return ""


@settings(QUICK, max_examples=400)
@given(data=st.data())
def test_mutated_values_are_valid_or_a_one_line_error(data: st.DataObject) -> None:
    values = copy.deepcopy(REAL)
    for _ in range(data.draw(st.integers(1, 2))):
        *where, key = data.draw(st.sampled_from(list(places(values))))
        section = at(values, tuple(where))
        mutation = data.draw(st.sampled_from(["remove", "replace", "rename", "move"]))
        value = section[key]
        if mutation == "replace":
            section[key] = data.draw(VALUES)
            continue
        del section[key]
        if mutation == "rename" and isinstance(section, dict):
            section[data.draw(TEXT | st.just(f"{key}s") | st.integers())] = value
        elif mutation == "move":
            mappings = [place for place in [(), *places(values)] if isinstance(at(values, place), dict)]
            at(values, data.draw(st.sampled_from(mappings)))[str(key)] = value
    outcome(values)


def test_unknown_key_is_an_error_everywhere() -> None:
    """Also keys that are hard to print, and keys with the names of the schema's own methods."""
    keys = itertools.cycle(["zzz", "options", "model_extra", "with (brackets) [and] a\nline", 7, None])
    wrong = []
    for place in [(), *places(REAL)]:
        if isinstance(at(REAL, place), dict):
            key = next(keys)
            values = copy.deepcopy(REAL)
            at(values, place)[key] = 1.5
            message = outcome(values)
            if str(key).replace("\n", r"\n") not in message and place[-1] != "classes":
                wrong.append((place, key, message))
    assert not wrong


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mnist_cnn", "mnist_cn"], r"export\[1\]: .*'mnist_cn'.*mnist_cnn"),
        (["mnist_cnn"] * 2, "export: mnist_cnn .* twice"),
    ],
)
def test_exported_models_exist_and_stand_once(names: list[str], message: str) -> None:
    values = copy.deepcopy(REAL)
    values["export"] = names
    assert re.search(message, outcome(values))


def small() -> bytes:
    """The file with one model on features: ruamel needs half a second for all of it."""
    values = copy.deepcopy(REAL)
    only(values, "imagenette_vgg16")
    values["gates"] = {"imagenette_vgg16": values["gates"]["imagenette_vgg16"]}
    stream = io.BytesIO()
    YAML(typ="safe", pure=True).dump(values, stream)
    return stream.getvalue()


SMALL = small()


@settings(QUICK, max_examples=120)
@given(
    st.integers(0, len(SMALL)),
    st.integers(0, 40),
    st.binary(max_size=6) | st.sampled_from([b"*a", b"&a [*a]", b"<<: "]),
)
def test_corrupt_text_is_valid_or_a_one_line_error(tmp_path: Path, start: int, length: int, new: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(SMALL[:start] + new + SMALL[start + length :])
    try:
        params.load(tmp_path / "params.yaml")
    except UserError as error:
        lines = str(error).splitlines()
    else:
        lines = ["valid"]
    assert len(lines) == 1


def test_train_section_overrides_every_model(tmp_path: Path) -> None:
    write_params(tmp_path, lambda values: values["train"].update(epochs=7, learning_rate=1e-05))
    values = params.load(tmp_path / "params.yaml")
    assert {model.epochs for model in values.resolved_models.values()} == {7}
    assert {model.learning_rate for model in values.resolved_models.values()} == {1e-05}
    assert values.resolved_models["mnist_cnn"].batch_size == values.models["mnist_cnn"].batch_size == 128


def test_epochs_on_synthetic_data_are_bounded_unless_train_overrides_them() -> None:
    found = {}
    for source, epochs in (("synthetic", None), ("real", None), ("synthetic", 4)):
        values = {**REAL, "source": source, "train": {**REAL["train"], "epochs": epochs}}
        found[source, epochs] = params.check(values, Path("params.yaml")).resolved_models["cifar10_airbench94"].epochs
    assert found == {("synthetic", None): 1, ("real", None): 9, ("synthetic", 4): 4}


def reverse_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reverse_keys(value[key]) for key in reversed(value)}
    return [reverse_keys(item) for item in value] if isinstance(value, list) else value


def test_order_of_keys_changes_nothing(tmp_path: Path) -> None:
    """DVC compares mappings without their order; JSON, which is YAML too, keeps it."""
    folders = {"pets": {"path": "pets", "classes": {"b": "cat", "a": "dog"}, "test_fraction": 0.2}}
    values = {**REAL, "folders": folders, "audits": {"mnist": {"features": "mnist", **AUDIT}}}
    found = []
    for order in (values, reverse_keys(values)):
        (tmp_path / "params.yaml").write_text(json.dumps(order), encoding="utf-8")
        loaded = params.load(tmp_path / "params.yaml")
        labels = {name: dataset.class_names for name, dataset in loaded.datasets.items()}
        resolved = [model.model_dump() for model in loaded.resolved_models.values()]
        found.append(json.dumps([loaded.model_dump(), labels, resolved]))
        assert labels["pets"] == ["dog", "cat"]
        assert labels["imagenette"][0] == "tench"
        assert [part.name for part in loaded.models["cifar10_airbench96"].augment][-1] == "cutout"
    assert found[0] == found[1]
    assert json.dumps(values) != json.dumps(reverse_keys(values))


def test_schema_defaults_are_neutral() -> None:
    """The schema is no dep of any stage: a default that changes a result would change it without a rerun."""
    waiting: list[Any] = [Params]
    checked = set()
    while waiting:
        annotation = waiting.pop()
        waiting += get_args(annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)) or annotation in checked:
            continue
        checked.add(annotation)
        for name, field in annotation.model_fields.items():
            waiting.append(field.annotation)
            if not field.is_required():
                default = field.get_default(call_default_factory=True)
                assert not default, f"{annotation.__name__}.{name}: {default!r}"
    assert len(checked) > 10


def test_build_of_every_part_names_its_options() -> None:
    """`**options` would let any key of params.yaml pass."""
    for package in ("models", *PARTS.values(), *OPTIONAL_PARTS.values(), *PART_LISTS.values()):
        for file in sorted((ROOT / "stages").joinpath(*package.split(".")).glob("[a-z]*.py")):
            parameters = inspect.signature(load_plugin(package, file.stem).build).parameters.values()
            assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters), file
