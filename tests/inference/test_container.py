"""The container image: its file, and its build where a daemon answers. test_serve runs the files that it copies."""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.inference.container import copies, copy_files, instructions
from tests.inference.serving import save_model


def engine() -> str | None:
    """The first of docker and podman that is installed and answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    return None


def test_containerfile_pins_its_base_and_packages_and_does_not_run_as_root() -> None:
    found = dict(instructions())
    assert re.fullmatch(r"python:3\.\d+-slim", found["FROM"])
    assert found["USER"] not in ("root", "0")
    installs = [arguments for name, arguments in instructions() if name == "RUN" and "pip install" in arguments]
    assert len(installs) == 1 and "--require-hashes -r requirements.txt" in installs[0]
    assert "/health" in found["HEALTHCHECK"]


def test_dockerignore_lets_in_what_containerfile_copies_and_no_data() -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    let_in = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    sources = [source for source, _ in copies()]
    assert patterns[0] == "*"
    assert all(any(fnmatch(source, pattern) for pattern in let_in) for source in sources)
    assert all(any(fnmatch(source, pattern) for source in sources) for pattern in let_in)


@pytest.mark.slow
def test_container_is_built_and_becomes_healthy(tmp_path: Path) -> None:
    name = engine()
    if name is None:
        pytest.skip("neither docker nor podman answers")
    save_model(tmp_path / "tiny.keras")
    copy_files(tmp_path, tmp_path / "tiny.keras")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    file = ["--file", str(ROOT / "Containerfile"), "--build-arg", "MODEL=tiny", "--tag", "classifier-test"]
    built = run(tmp_path, name, "build", *file, str(tmp_path))
    assert built.returncode == 0, built.stderr
    probe = "import time, urllib.request as r; time.sleep(40); print(r.urlopen('http://127.0.0.1:8000/health').status)"
    command = ["sh", "-c", f'python -m tools.use.serve "$MODEL" & python -c "{probe}"']
    done = run(tmp_path, name, "run", "--rm", "classifier-test", *command)
    assert "200" in done.stdout, done.stderr
