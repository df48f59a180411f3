"""The JSON of the server: what it answers, and the bodies that it takes, as its OpenAPI schema describes them."""

from typing import Any

from pydantic import BaseModel, Field


class Prediction(BaseModel):
    """A class and its probability."""

    name: str = Field(serialization_alias="class")
    probability: float


class Image(BaseModel):
    """The answer for one image."""

    name: str | None = Field(default=None, description="the file's name in a form")
    predictions: list[Prediction] | None = Field(default=None, description="the most probable class first")
    verdict: str | None = Field(default=None, description="not sure, if the probabilities are too close")
    conversions: list[str] | None = Field(default=None, description="applied to the file, such as EXIF orientation")
    overlay: str | None = Field(default=None, description="the image under its heat map, a data URL of a PNG")
    error: str | None = Field(default=None, description="what is wrong with the file; then there are no predictions")


class Answer(BaseModel):
    """The answer for all images of a request, in their order."""

    model: str
    source: str | None = Field(default=None, description="the data that the model was trained on: synthetic or real")
    images: list[Image]


class Health(BaseModel):
    """The state of the server."""

    status: str
    model: str
    source: str | None = Field(default=None, description="the data that the model was trained on: synthetic or real")
    classes: list[str]
    max_bytes: int = Field(description="bytes of the largest request")


class Error(BaseModel):
    """What went wrong."""

    error: str


_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"files": {"type": "array", "items": _FILE}}}
_KINDS = {"image/*": _FILE, "application/octet-stream": _FILE, "multipart/form-data": _FORM}
BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in _KINDS.items()}}
}
