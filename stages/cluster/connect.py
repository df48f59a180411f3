"""Connection to Ray. Only stages.cluster knows Ray, and no output depends on it.

The cluster is the one at RAY_ADDRESS, or one of this machine's cores for the time of the work. The other nodes need the
packages of requirements.txt and requirements-cluster.txt, but neither this repository nor its data.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.runtime.errors import UserError
from stages.runtime.numerics import silent

STORE = 1 << 30  # bytes of memory for objects, if the cluster is this machine
LONGEST = 30  # characters of TMPDIR: Ray makes sockets there, whose paths have at most 107, and 103 on macOS


@contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray for the time of the block.

    Raises:
        UserError: Ray is not installed, or no cluster of this version answers at RAY_ADDRESS.
    """
    # Errors that Ray's C++ part logs help no user; what ends the work raises an exception.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers on this machine have the priority of this process
    try:
        import ray
    except ImportError:
        raise UserError(
            "params.yaml: engine: ray is not installed; run `make setup-cluster`, or set it to local"
        ) from None
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
    if len(tempfile.gettempdir()) > LONGEST:
        local["_temp_dir"] = "/tmp/ray"
    try:
        with silent():  # Ray reports that its log level is set
            ray.init(
                **({} if address else local),
                runtime_env={"py_modules": [str(Path(__file__).parents[1])], "excludes": ["__pycache__"]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise UserError(f"RAY_ADDRESS: {address}: {str(error).strip().splitlines()[0]}{_hint()}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _hint() -> str:
    """What to try if no cluster answers: Ray sends a token to one that is named only if it is told to."""
    if "RAY_AUTH_MODE" in os.environ or not (Path.home() / ".ray/auth_token").exists():
        return ""
    return "; if `ray start` said that token authentication is enabled, set RAY_AUTH_MODE=token"


def amounts(resource: str) -> list[int]:
    """How much of a resource, such as CPU or GPU, each living node has."""
    import ray

    return [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]]
