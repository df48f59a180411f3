"""A model over HTTP: `mlflow models serve`, and `make serve`, with 1, 16 and 64 clients.

The images are those of the test split in data/records. The server of this project gets the stored file, as a phone
would send it: it decodes, crops and resizes. MLflow's gets the pixels that come out of that, as the JSON of its
protocol, because it decodes no images. JSON is written before the clock starts. Both predict in one process; clients
keep their connections, and each sends its next request when it has its answer.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from benchmarks.common import Result, Round, Row, Table, Target, interleaved, log
from stages.config import params
from stages.config.messages import lookup
from stages.inference.locate import find_model
from stages.inference.predictor import Predictor
from stages.runtime.errors import UserError

MODELS = ("mnist_cnn", "imagenette_cnn")
CLIENTS = (1, 16, 64)
MLFLOW, OURS = "mlflow models serve", "make serve"
IMAGES = 64  # different ones
START_SECONDS = 400
TIMEOUT = 120.0  # seconds for an answer


def measure(quick: bool) -> Result:
    """Throughput and latencies of each model with each number of clients."""
    throughput = Table("Throughput", "images/s", [])
    latencies = {
        share: Table(f"Latency, {name}", "ms", []) for share, name in ((50, "median"), (99, "99th percentile"))
    }
    targets = []
    for name in MODELS:
        with servers(name) as (requests, ports):
            for clients in CLIENTS:
                count = clients * (2 if quick else 8) + 32
                contenders = {
                    side: _round(side, ports[side], requests[side], clients, count) for side in (MLFLOW, OURS)
                }
                interleaved(contenders, 1)  # connections, graphs
                results = interleaved(contenders, 1 if quick else 5)
                title = f"{name}, {clients} client{'s' if clients > 1 else ''}"
                values = {side: [count / one.seconds for one in rounds] for side, rounds in results.items()}
                throughput.rows.append(Row(title, values))
                for share, table in latencies.items():
                    quantiles = {
                        side: [1000 * float(np.percentile(one.value, share)) for one in rounds]
                        for side, rounds in results.items()
                    }
                    table.rows.append(Row(title, quantiles))
                row = throughput.rows[-1]
                log(f"{title}: " + ", ".join(f"{side} {rate:,.0f}" for side, rate in row.medians.items()) + " images/s")
            targets.append(Target(f"`{name}` with 64 clients against `mlflow models serve`", "≥ 3.0", row.ratio(OURS)))
    return Result([throughput, *latencies.values()], targets)


@contextmanager
def servers(name: str) -> Iterator[tuple[dict[str, list[bytes]], dict[str, int]]]:
    """Start both servers of a model; give their requests, and their ports. They have given the same answers."""
    path = find_model(name)
    predictor = Predictor(path, params.load().threads)  # before the reader, which imports TensorFlow as it is
    files = _files(name)
    bodies = [json.dumps({"inputs": predictor.decode(data)[0][np.newaxis].tolist()}).encode() for data in files]
    requests = {
        OURS: [_form("/predict?k=1", data) for data in files],
        MLFLOW: [_request("/invocations", "application/json", body) for body in bodies],
    }
    with tempfile.TemporaryDirectory() as folder:
        _save_for_mlflow(predictor, Path(folder, "model"))
        ports = {side: _free_port() for side in requests}
        options = ["--env-manager", "local", "--host", "127.0.0.1", "--workers", "1"]
        commands = {
            OURS: ["tools.use.serve", str(path)],
            MLFLOW: ["mlflow", "models", "serve", "--model-uri", f"{folder}/model", *options],
        }
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": f"{TIMEOUT:.0f}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow calls uvicorn by its name
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        with ExitStack() as stack:
            logs = {side: Path(folder, f"{ports[side]}.log") for side in commands}
            processes = {}
            for side, command in commands.items():
                line = [sys.executable, "-m", *command, "--port", str(ports[side])]
                processes[side] = stack.enter_context(_running(line, environment, logs[side]))
            for side, process in processes.items():
                _wait(side, process, ports[side], logs[side])
            labels = {
                side: [_label(_answer(ports[side], one), predictor) for one in found]
                for side, found in requests.items()
            }
            if labels[OURS] != labels[MLFLOW]:
                raise UserError(f"benchmarks: the two servers of {name} disagree on the class of an image")
            yield requests, ports


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command, and end it and its children with the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
            with suppress(ProcessLookupError):  # a server that hangs in a request outlives the process that started it
                os.killpg(process.pid, signal.SIGKILL)


def _files(name: str) -> list[bytes]:
    """Stored images of the test split."""
    from stages.data import reader

    dataset = lookup(params.load().models, name, "models").dataset
    return list(next(reader.batches(dataset, "test", IMAGES, decode=False))["input"])


def _save_for_mlflow(predictor: Predictor, folder: Path) -> None:
    """Save the model in MLflow's Keras flavor, with its signature, as tracking does."""
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs, outputs = (
        Schema([TensorSpec(np.dtype(str(tensor.dtype)), (-1, *tensor.shape[1:]))])
        for tensor in (predictor.model.inputs[0], predictor.model.outputs[0])
    )
    signature = ModelSignature(inputs, outputs)
    mlflow.keras.save_model(predictor.model, str(folder), signature=signature, pip_requirements=["tensorflow"])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _wait(side: str, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Until a server answers."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            _answer(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return
        except (OSError, asyncio.TimeoutError):
            time.sleep(0.5)
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
    reason = f"did not start in {START_SECONDS} seconds" if process.poll() is None else "ended at its start"
    raise UserError(f"benchmarks: {side} {reason}: {''.join(last)[:200]}")


def _request(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _form(path: str, data: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return _request(path, "multipart/form-data; boundary=x", head + data + b"\r\n--x--\r\n")


def _label(answer: bytes, predictor: Predictor) -> int:
    """The most probable class according to either server."""
    found = json.loads(answer)
    if "images" in found:
        return predictor.classes.index(found["images"][0]["predictions"][0]["class"])
    return int(np.argmax(found["predictions"][0]))


def _answer(port: int, request: bytes) -> bytes:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(_read(reader), TIMEOUT)
        writer.close()
        return answer

    return asyncio.run(ask())


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer.

    Raises:
        OSError: there is none.
        UserError: it is an error.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
    except asyncio.IncompleteReadError:
        raise ConnectionError("closed") from None
    if head.split()[1] != "200":
        raise UserError(f"benchmarks: a server answered {head.splitlines()[0]}: {body[:200]!r}")
    return body


def _round(side: str, port: int, requests: list[bytes], clients: int, count: int) -> Callable[[], Round]:
    """A round in which clients send `count` requests in all. Its value has the seconds of each."""

    async def load() -> list[float]:
        seconds: list[float] = []
        waiting = iter([requests[number % len(requests)] for number in range(count)])

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for request in waiting:
                start = time.perf_counter()
                writer.write(request)
                await asyncio.wait_for(_read(reader), TIMEOUT)
                seconds.append(time.perf_counter() - start)
            writer.close()

        await asyncio.gather(*(client() for _ in range(clients)))
        return seconds

    def run_round() -> Round:
        start = time.perf_counter()
        try:
            seconds = asyncio.run(load())
        except (OSError, asyncio.TimeoutError) as error:
            reason = str(error) or f"no answer in {TIMEOUT:g} seconds"
            raise UserError(f"benchmarks: {side} failed with {clients} clients: {reason}") from None
        return Round(time.perf_counter() - start, seconds)

    return run_round
