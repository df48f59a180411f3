"""`make serve`: a model that answers over HTTP, with a page for images."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from stages.config import params
from stages.inference.limits import Limits
from stages.runtime.cli import guard
from tools.lib.champion import resolve_model


def serve(arguments: argparse.Namespace) -> None:
    """Load the model and serve it until Ctrl-C or SIGTERM.

    Raises:
        UserError: there is no such model, or the address cannot be used.
    """
    path = resolve_model(arguments.model)
    from stages.inference import app, server
    from stages.inference.predictor import Predictor

    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    bound = server.bind(arguments.host, arguments.port)
    predictor = Predictor(path, params.load().threads, limits.max_pixels)
    server.run(app.create_app(path.stem, predictor, limits), limits, bound, arguments.log)


def _positive(kind: type) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a positive number")
        return value

    return number


def parser() -> argparse.ArgumentParser:
    """The command line: each of `Limits` is an option."""
    found = argparse.ArgumentParser(prog="python -m tools.use.serve", description="Serve a model over HTTP.")
    found.add_argument("model", metavar="MODEL", help="a name in data/models, the path of a .keras file, or champion")
    found.add_argument("--host", default="127.0.0.1", help="0.0.0.0 also answers other machines (%(default)s)")
    found.add_argument("--port", type=int, default=8000, help="0 for any (%(default)s)")
    found.add_argument("--log", type=Path, help="a file for one line a request (standard error)")
    group = found.add_argument_group("limits")
    for field in fields(Limits):
        option = f"--{field.name.replace('_', '-')}"
        meaning = f"{field.metadata['help']} (%(default)s)"
        group.add_argument(
            option, type=_positive(type(field.default)), default=field.default, metavar="N", help=meaning
        )
    return found


if __name__ == "__main__":
    guard(lambda: serve(parser().parse_args()))
