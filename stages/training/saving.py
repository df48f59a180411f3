"""Save a model to a .keras file whose bytes depend on the model alone."""

import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from stages.runtime.files import atomic_write

if TYPE_CHECKING:
    import keras


def save(model: "keras.Model", path: Path) -> None:
    """Save `model`, which was never compiled; saving it again gives the same bytes."""
    with atomic_write(path) as part, tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(part, "w") as target:
            for name in sorted(source.namelist()):
                data = source.read(name)
                if name == "metadata.json":
                    data = json.dumps({**json.loads(data), "date_saved": ""}).encode()
                elif name == "config.json":
                    data = _renumber_shared_objects(data.decode()).encode()
                target.writestr(zipfile.ZipInfo(name), data)  # the default date of ZipInfo is 1980-01-01


def _renumber_shared_objects(config: str) -> str:
    """Replace the memory addresses by which Keras identifies shared objects: number them in their order."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'(?<="shared_object_id": )\d+', lambda found: str(numbers.setdefault(found[0], len(numbers))), config
    )
