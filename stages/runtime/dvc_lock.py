"""Reads dvc.lock while another DVC may be rewriting it."""

import time
from pathlib import Path
from typing import Any

import yaml

from stages.runtime import paths

SETTLED = 0.5  # seconds without a write after which the file is complete: DVC writes it in place, piece by piece
PATIENCE = 20.0  # seconds
PAUSE = 0.05  # seconds between two attempts


def read(path: Path = paths.LOCK) -> dict[str, Any]:
    """Read dvc.lock; wait while it is being rewritten.

    Returns:
        The content; empty if there is no file, or none that is complete for `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            # A clock that differs from the file system's by more than SETTLED must not make this wait in vain.
            if abs(time.time() - path.stat().st_mtime) >= SETTLED:
                content = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
                if isinstance(content, dict) and abs(time.time() - path.stat().st_mtime) >= SETTLED:
                    return content
        except FileNotFoundError:
            return {}
        except (yaml.YAMLError, ValueError):
            pass
        time.sleep(PAUSE)
    return {}


def output_hashes(lock: Path = paths.LOCK) -> dict[str, str]:
    """The hash of each output in dvc.lock, by its path."""
    stages = read(lock).get("stages", {}).values()
    return {out["path"]: str(out["md5"]) for stage in stages for out in stage.get("outs", []) if "md5" in out}
