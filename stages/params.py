"""params.yaml as typed, validated values. No other module reads the file."""

import difflib
import importlib.util
import inspect
import re
import reprlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.console import UserError

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$")]
Classes = TypeVar("Classes", list[str], dict[str, str])
Origin = Literal["sample", "published"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Devices = Literal["one", "all"]


def _distinct(classes: Classes) -> Classes:
    """Refuse class names that a table could not tell apart, or that a list of one name a line would change."""
    names = list(classes.values()) if isinstance(classes, dict) else classes
    if len(set(names)) < len(names) or not all(name.isprintable() and name == name.strip() != "" for name in names):
        raise ValueError("class names should be distinct and printable, without spaces around them")
    return classes


class Section(BaseModel):
    """A mapping of params.yaml: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Source(Section):
    """Where a file is to be had, and the hash that it has there."""

    url: Annotated[str, StringConstraints(pattern=r"^(https?|file)://\S+$")]
    hash: Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$")]


Files = Annotated[dict[FileName, Annotated[list[Source], Field(min_length=1)]], Field(min_length=1)]


class SampleSize(Section):
    """Images drawn for each split."""

    train: Annotated[int, Field(ge=20, le=1_000_000)]
    test: Annotated[int, Field(ge=10, le=1_000_000)]


class Dataset(Section):
    """An entry of `datasets:`: archives in a known format."""

    format: Name
    classes: (
        Annotated[list[str], Field(min_length=2), AfterValidator(_distinct)]
        | Annotated[dict[str, str], Field(min_length=2), AfterValidator(_distinct)]
    )
    sample: SampleSize
    files: Files
    source: Origin | None = None

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the labels."""
        return list(self.classes.values()) if isinstance(self.classes, dict) else self.classes


class Weights(Section):
    """An entry of `weights:`: the file of a backbone."""

    files: Files
    source: Origin | None = None


class Features(Section):
    """An entry of `features:`: what a frozen backbone makes of a dataset."""

    dataset: Name
    backbone: Name
    image_size: Annotated[int, Field(ge=32, le=4096)]
    precision: Precision = "auto"


class Train(Section):
    """What overrides every model's own value where it is not null, and the validation split of all."""

    validation_fraction: Fraction
    epochs: Positive | None = None
    batch_size: Positive | None = None
    learning_rate: Rate | None = None
    precision: Precision | None = None
    devices: Devices | None = None


class Augment(Section):
    """Random changes of training images, applied in this order."""

    horizontal_flip: bool = False
    contrast: Fraction | None = None
    rotation: Annotated[Fraction, Field(description="of a full turn, both ways")] | None = None
    shift: Annotated[Fraction, Field(description="of height and width, both ways")] | None = None
    zoom: Fraction | None = None


class Model(Section):
    """An entry of `models:`: a recipe, with the published one as its default."""

    model_config = ConfigDict(extra="allow")  # the architecture's own keys, checked against its `build`

    dataset: Name
    architecture: Name
    optimizer: Literal["adam", "sgd"]
    learning_rate: Rate
    batch_size: Positive
    epochs: Positive
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    precision: Precision = "float32"
    devices: Devices = "one"
    schedule: Literal["constant", "cosine"] = "constant"
    early_stopping: Positive | None = None
    restore_best: bool = False
    augment: Augment | None = None
    unseen_prefix: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are the architecture's own: keyword arguments of its `build`."""
        return dict(self.model_extra or {})


class Gate(Section):
    """An entry of `gates:`: what `tools.gate` lets a model's test accuracy fall to, and by."""

    floor: Fraction | None = None
    max_fall: Fraction | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> "Gate":
        if self.floor is None and self.max_fall is None:
            raise ValueError("it should have a floor, a max_fall or both")
        return self


class Params(Section):
    """The whole file."""

    source: Origin
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    skip_bad_images: bool
    engine: Literal["local", "ray"]
    datasets: dict[Name, Dataset]
    weights: dict[Name, Weights]
    features: dict[Name, Features]
    train: Train
    models: dict[Name, Model]
    gates: dict[Name, Gate]

    @cached_property
    def recipes(self) -> dict[str, Model]:
        """Each model's entry with the overrides of `train` applied."""
        overrides = {
            key: value
            for key, value in self.train.model_dump(exclude={"validation_fraction"}).items()
            if value is not None
        }
        return {name: model.model_copy(update=overrides) for name, model in self.models.items()}

    def is_sample(self, entry: Dataset | Weights) -> bool:
        """Whether this entry's archives are drawn rather than fetched."""
        return (entry.source or self.source) == "sample"

    def is_drawn(self, model: str) -> bool:
        """Whether a model's images, or the weights that made features of them, are drawn rather than fetched."""
        name = self.models[model].dataset
        features = self.features.get(name)
        if features is None:
            return self.is_sample(self.datasets[name])
        return self.is_sample(self.datasets[features.dataset]) or self.is_sample(self.weights[features.backbone])


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file.

    Raises:
        UserError: one line with the key, its value and what is allowed.
    """
    try:
        # DVC's own parser: PyYAML would read the 1e-05 that `dvc exp run -S` writes as a string.
        values = YAML(typ="safe", pure=True).load(path.read_text())
    except (YAMLError, ValueError, RecursionError) as error:  # the latter two: of a number, of brackets without end
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return check(values, path)


def check(values: Any, path: Path) -> Params:
    """What was read from `path`, as parameters; errors as of `load`."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error, values, Params)}") from None
    _check_references(params, path)
    return params


Entry = TypeVar("Entry")


def entry(section: dict[str, Entry], name: str, what: str) -> Entry:
    """`section[name]`, or a `UserError` that lists the names there are."""
    if name not in section:
        raise UserError(f"params.yaml: {what}: there is no {name!r}; {_choices(name, section)}")
    return section[name]


def _check_references(params: Params, path: Path) -> None:
    """Check what one entry says of another, and of the modules found by name."""
    folders: dict[str, str] = {}  # all three kinds have a folder of their name in data/raw or data/records
    for section in ("datasets", "weights", "features"):
        for name in getattr(params, section):
            if name in folders:
                raise UserError(
                    f"{path}: {section}.{name}: the name is taken by {folders[name]}.{name}; choose another"
                )
            folders[name] = section
    for name, dataset in params.datasets.items():
        _check_module(f"{path}: datasets.{name}.format", "formats", dataset.format)
    for name, features in params.features.items():
        entry(params.datasets, features.dataset, f"features.{name}.dataset")
        entry(params.weights, features.backbone, f"features.{name}.backbone")
        _check_module(f"{path}: features.{name}.backbone", "backbones", features.backbone)
        if len(files := params.weights[features.backbone].files) > 1:
            raise UserError(
                f"{path}: weights.{features.backbone}.files: {', '.join(files)}: {name} reads one; remove the others"
            )
    for name, model in params.models.items():
        key = f"models.{name}"
        entry({**params.datasets, **params.features}, model.dataset, f"{key}.dataset")
        for pixels_only in ("image_size", "augment"):
            if model.dataset in params.features and getattr(model, pixels_only) is not None:
                raise UserError(f"{path}: {key}.{pixels_only}: {model.dataset} holds features, not images; remove it")
        _check_module(f"{path}: {key}.architecture", "models", model.architecture)
        build = importlib.import_module(f"stages.models.{model.architecture}").build
        options = _options_of(build, model.architecture)
        try:
            options.model_validate(model.options)
        except ValidationError as error:
            raise UserError(f"{path}: {_explain(error, model.options, options, key)}") from None
    for name in params.gates:
        if name not in params.models:
            raise UserError(f"{path}: gates.{name}: there is no such model; {_choices(name, params.models)}")


def _check_module(key: str, package: str, name: str) -> None:
    if importlib.util.find_spec(f"stages.{package}.{name}") is None:
        known = sorted(file.stem for file in (Path(__file__).parent / package).glob("[a-z]*.py"))
        raise UserError(f"{key}: there is no {name!r}; {_choices(name, known)}")


def _options_of(build: Callable[..., Any], name: str) -> type[Section]:
    """The keyword-only parameters of an architecture's `build`, as a section of params.yaml."""
    fields: dict[str, Any] = {
        parameter.name: (
            parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(name, __base__=Section, **fields)


def _explain(error: ValidationError, values: Any, root: type[BaseModel], prefix: str = "") -> str:
    """The most telling of pydantic's errors in `values` as one line: key, value, what is allowed."""
    # A misspelt key is two errors, one missing and one unknown: the unknown one is what the user wrote. Of a union,
    # the type that the value does not have says least.
    ranks = {"extra_forbidden": 0, "list_type": 2, "dict_type": 2}
    first = min(error.errors(), key=lambda found: ranks.get(found["type"], 1))
    parts = _place(values, first["loc"])
    if first["type"] == "missing":
        parts.append(str(first["loc"][-1]))
    key = ".".join([*filter(None, [prefix]), *map(_printable, parts)]) or "the file"
    if first["type"] == "missing":
        return f"{key}: missing; add it"
    if first["type"] == "extra_forbidden":
        return (
            f"{key}: unknown key with value {_shown(first['input'])}; {_choices(parts[-1], _keys_beside(root, parts))}"
        )
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {_shown(first['input'])}: {message[0].lower()}{message[1:]}"


def _place(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys and indices that lead to an error, without pydantic's notes among them: types of a union, "[key]"."""
    parts = []
    for part in map(str, location):
        inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
        found = [value for key, value in inner if str(key) == part]
        if found:
            parts.append(part)
            values = found[0]
    return parts


def _printable(text: str) -> str:
    """On one line, and to be seen."""
    return text if text.isprintable() and text.strip() else ascii(text)


def _shown(value: Any) -> str:
    """A value in an error: short, however large and deep it is, and without the password of a URL."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 10_000  # first the password, then the length
    shortened.maxlevel = 2
    try:
        text = re.sub(r"//[^/\s]*@", "//***@", shortened.repr(value))
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."


def _keys_beside(section: Any, parts: list[str]) -> list[str]:
    """The keys that a section allows where `parts` ends."""
    for part in parts[:-1]:
        is_section = isinstance(section, type) and issubclass(section, BaseModel)
        section = section.model_fields[part].annotation if is_section else get_args(section)[-1]
        while get_args(section) and get_origin(section) not in (dict, list):
            section = get_args(section)[0]  # of Annotated, or of a section that may be null
    return list(section.model_fields)


def _choices(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "allowed: " + ", ".join(map(_printable, known))


def main() -> None:
    """Check params.yaml."""
    params = load()
    print(f"params.yaml: {len(params.datasets)} datasets, {len(params.models)} models, source {params.source}")


if __name__ == "__main__":
    from stages.console import run

    run(main)
