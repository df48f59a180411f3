"""`make serve`: a model that answers over HTTP, with a page for images."""

import argparse
import socket

from stages.config import params
from stages.data.jpeg import MAX_PIXELS
from stages.inference.locate import find_model
from stages.runtime.cli import guard
from stages.runtime.errors import UserError

HEADERS = [("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer")]


def serve(arguments: argparse.Namespace) -> None:
    """Load the model and serve it until Ctrl-C or SIGTERM.

    Raises:
        UserError: there is no such model, or the address cannot be used.
    """
    path = find_model(arguments.model)
    _check_address(arguments.host, arguments.port)
    import uvicorn

    from stages.inference.app import create_app
    from stages.inference.predictor import Predictor

    values = params.load()
    predictor = Predictor(path, values.threads, min(values.max_pixels, MAX_PIXELS))
    uvicorn.run(
        create_app(path.stem, predictor, arguments.max_bytes),
        host=arguments.host,
        port=arguments.port,
        ws="none",
        proxy_headers=False,
        server_header=False,
        headers=HEADERS,
        limit_concurrency=arguments.max_connections,
        timeout_graceful_shutdown=30,
    )


def _check_address(host: str, port: int) -> None:
    """Check that an address is free before a model is loaded, which takes seconds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port}: {reason}; choose another --host or --port") from None


def parser() -> argparse.ArgumentParser:
    """The command line; `--help` explains it."""
    found = argparse.ArgumentParser(
        prog="python -m tools.use.serve",
        description="Serve a model over HTTP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    found.add_argument("model", metavar="MODEL", help="a name in data/models, or the path of a .keras file")
    found.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 also answers other machines")
    found.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any")
    for option, default, meaning in (
        ("--max-bytes", 10_000_000, "size of the largest request"),
        ("--max-connections", 256, "connections at the same time; further ones are answered with 503"),
    ):
        found.add_argument(option, type=int, default=default, metavar="N", help=meaning)
    return found


if __name__ == "__main__":
    guard(lambda: serve(parser().parse_args()))
