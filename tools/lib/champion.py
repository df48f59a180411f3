"""Find the file of a model by what a person calls it: a name, a path, or `champion`."""

from pathlib import Path

from stages.inference.locate import find_model
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash
from stages.tracking import registry
from stages.tracking.registry import ALIAS

DOWNLOADED = Path(".dvc/tmp/champion")


def resolve_model(text: str) -> Path:
    """The file of a model: of a name in data/models, of a path, of `NAME@champion`, or of the only `champion`.

    Raises:
        UserError: there is no such model, no champion, or more than one.
    """
    name, at, alias = text.rpartition("@")
    if text == ALIAS or (at and alias == ALIAS):
        return _champion_file(name)
    return find_model(text)


def _champion_file(name: str) -> Path:
    """The champion of a model, or of all models if the name is empty: a local file, downloaded if need be."""
    found = [champion for champion in registry.champions() if name in ("", champion.name)]
    if not found:
        raise UserError(f"{name or 'champion'}: no model was promoted; `make promote MODEL={name or 'NAME'}` does that")
    if len(found) > 1:
        several = ", ".join(f"{champion.name}@{ALIAS}" for champion in found)
        raise UserError(f"{ALIAS}: several models have one; name one of {several}")
    (champion,) = found
    here, target = paths.model(champion.name), DOWNLOADED / f"{champion.name}-{champion.model_md5}.keras"
    if here.exists() and file_hash(here, "md5") == champion.model_md5:
        return here
    if not target.exists():
        registry.download(champion, target)
    return target
