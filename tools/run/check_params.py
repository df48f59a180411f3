"""Check params.yaml as a whole: `make repro` does this before any stage runs."""

from stages.config.params import load
from stages.runtime.cli import run


def check_params() -> None:
    """Print one line on what params.yaml holds; a value that is not valid is one line, too."""
    params = load()
    print(f"params.yaml: {len(params.datasets)} datasets, {len(params.models)} models, source {params.source}")


if __name__ == "__main__":
    run(check_params)
