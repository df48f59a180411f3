"""The sections `datasets` and `weights` of params.yaml: archives, where to download them, and their classes."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, model_serializer, model_validator

from stages.config.types import Config, FileName, Name, matching

Classes = TypeVar("Classes", list[str], dict[str, str])


def _check_class_names(classes: Classes) -> Classes:
    """Reject class names that a table could not tell apart or that a file of one name per line would change."""
    names = list(classes.values()) if isinstance(classes, dict) else classes
    if len(set(names)) < len(names) or not all(name.isprintable() and name == name.strip() != "" for name in names):
        raise ValueError("class names should be distinct and printable, without spaces around them")
    return classes


ClassNames = (
    Annotated[list[str], Field(min_length=2), AfterValidator(_check_class_names)]
    | Annotated[dict[str, str], Field(min_length=2), AfterValidator(_check_class_names)]
)


class MirrorConfig(Config):
    """One place to download a file from, and the hash that the file has there: URL#sha256=DIGITS, or #md5=DIGITS."""

    url: Annotated[str, matching(r"(https?|file)://\S+", "it should begin with https://, http:// or file://")]
    hash: Annotated[
        str,
        matching(
            r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}",
            "the URL should end in #sha256= and the 64 digits that `sha256sum FILE` prints, or #md5= and 32 digits",
        ),
    ]

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        url, _, digest = value.partition("#")
        return {"url": url, "hash": digest.replace("=", ":", 1) or value}

    @model_serializer
    def _as_text(self) -> str:
        return f"{self.url}#{self.hash.replace(':', '=')}"


Files = Annotated[dict[FileName, Annotated[list[MirrorConfig], Field(min_length=1)]], Field(min_length=1)]


class SyntheticConfig(Config):
    """Number of images to generate for each split."""

    train: Annotated[int, Field(ge=20, le=1_000_000)]
    test: Annotated[int, Field(ge=10, le=1_000_000)]


class DatasetConfig(Config):
    """An entry of `datasets`: archives in a known format."""

    format: Name
    classes: ClassNames
    files: Files
    synthetic: SyntheticConfig | None = None  # None: always downloaded

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the labels."""
        return list(self.classes.values()) if isinstance(self.classes, dict) else self.classes


class WeightsConfig(Config):
    """An entry of `weights`: the pretrained weights of a backbone."""

    files: Files = Field(default_factory=dict)  # none: those of the network of keras.applications with the entry's name
    synthetic: bool = False  # False: always downloaded
