"""`make export MODEL=…`: a model as LiteRT files, whether or not `export` in params.yaml lists it."""

import subprocess
import sys

from stages.config import params
from stages.config.messages import lookup
from stages.runtime.cli import run
from tools.lib.unlock import unlock


def export(model: str) -> None:
    """Train the model if it is stale, and export it. DVC tracks the files of models that params.yaml lists."""
    values = params.load()
    unlock()
    lookup(values.models, model, "models")
    commands = [["dvc", "repro", f"export@{model}"]]
    if model not in values.export:
        commands = [["dvc", "repro", f"train@{model}"], [sys.executable, "-m", "stages.export", model]]
    for command in commands:
        if code := subprocess.run(command).returncode:
            sys.exit(code)


if __name__ == "__main__":
    run(export, "model")
