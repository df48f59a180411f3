"""Read params.yaml into typed values. No other module reads the file."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.config.messages import explain
from stages.config.references import check_references
from stages.config.schema import Params
from stages.runtime import paths
from stages.runtime.errors import UserError


def load(path: Path = paths.PARAMS) -> Params:
    """Read and check the whole file.

    Raises:
        UserError: one line with the key, its value and what is allowed.
    """
    try:
        # DVC's own parser: PyYAML would read the 1e-05 that `dvc exp run -S` writes as a string.
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, ValueError, RecursionError) as error:  # the latter two: bad numbers, endless brackets
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: not YAML: {where}{' '.join(str(problem or error).split())}") from None
    return check(values, path)


def check(values: Any, path: Path) -> Params:
    """Turn the content of `path` into `Params`. Errors as in `load`."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, values)}") from None
    check_references(params, path)
    return params
