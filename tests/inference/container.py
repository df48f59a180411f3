"""Read Containerfile as far as the tests need it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction with its arguments, on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            yield name, re.sub(r"\s+", " ", arguments)


def copies() -> Iterator[tuple[str, str]]:
    """Source and target of each file and folder that is copied into the image."""
    for name, arguments in instructions():
        if name == "COPY":
            *sources, target = arguments.split()
            yield from ((source, target) for source in sources)


def copy_files(folder: Path, model: Path) -> None:
    """Copy what the image has to a folder, with `model` as its model."""
    for source, target in copies():
        found = model if "$MODEL" in source else ROOT / source
        assert found.exists(), source
        if found.is_dir():
            shutil.copytree(found, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(found, folder / target)
