"""A tiny model, image files for it, and a real server process on a free port of 127.0.0.1."""

import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from stages.config import params
from stages.runtime.numerics import import_tensorflow
from tests.conftest import ROOT, SAMPLE
from tests.training.small import CLASSES, config, model_of, trained

THREADS = params.load(SAMPLE / "params.yaml").threads


def save_model(path: Path) -> None:
    """Train and save a small convolutional network on images of 8 pixels."""
    from stages.prediction.saved_model import save

    import_tensorflow(THREADS)
    model, _ = trained(config(architecture="cnn", units=[8], filters=[4], padding="same"))
    signature = {"classes": CLASSES, "dataset": "mnist", "image_size": 8, "channels": 1}
    save(model, path, {**signature, "source": "synthetic", "not_sure_below": 0.9, "test_time": None, "backbone": None})


def save_known(path: Path) -> None:
    """Save an untrained model that knows uniform images alone."""
    import_tensorflow(THREADS)

    from stages.prediction.saved_model import save

    signature = {"classes": CLASSES, "dataset": "mnist", "image_size": 8, "channels": 1, "source": "real"}
    signature |= {"none_of_these_below": 0.9, "test_time": None, "backbone": None}
    save(model_of(config()), path, signature, np.full((2, 64), 1 / 8, np.float32))


def image_file(level: int, kind: str = "JPEG", side: int = 24) -> bytes:
    """A file of a noisy gray image around a level from 0 to 255."""
    noise = np.random.default_rng(level).normal(level, 20, (side, side, 3)).clip(0, 255)
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, kind)
    return file.getvalue()


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    def predict(self, *files: bytes, query: str = "") -> requests.Response:
        """POST a form of images on a connection of its own."""
        form = [("files", (f"{number}.jpg", data)) for number, data in enumerate(files)]
        return requests.post(f"{self.url}/predict{query}", files=form, timeout=60)

    def assert_healthy(self) -> None:
        """It answers within a second, at the third try if the machine is busy."""
        seconds: list[float] = []
        while not seconds or (seconds[-1] >= 1 and len(seconds) < 3):
            start = time.monotonic()
            assert requests.get(f"{self.url}/health", timeout=30).json()["status"] == "ok"
            seconds.append(time.monotonic() - start)
        assert seconds[-1] < 1, seconds


@contextmanager
def serving(model: Path, folder: Path, *options: str, project: Path = ROOT) -> Iterator[Server]:
    """Serve a model with the code in `project`; the server is killed after the block if it still runs."""
    log = folder / "requests.log"
    command = [sys.executable, "-m", "tools.use.serve", str(model), "--port", "0", *options]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=project, stdout=file, stderr=file)
    try:
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield Server(process, int(found[1]), log)
    finally:
        process.kill()
        process.wait()
