"""The JSON of the server: what it answers, and the bodies that it takes, as its OpenAPI schema describes them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Prediction(BaseModel):
    """A class and its probability."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    probability: float


class Image(BaseModel):
    """The answer for one image."""

    name: Annotated[str | None, Field(description="of the file in a form")] = None
    predictions: Annotated[list[Prediction] | None, Field(description="the most probable class first")] = None
    conversions: Annotated[list[str] | None, Field(description="applied to the file, such as EXIF orientation")] = None
    overlay: Annotated[str | None, Field(description="the image under its heat map, a data URL of a PNG")] = None
    error: Annotated[str | None, Field(description="what is wrong with the file; then there are no predictions")] = None


class Answer(BaseModel):
    """The answer for all images of a request, in their order."""

    model: str
    images: list[Image]


class Health(BaseModel):
    """The state of the server."""

    status: str
    model: str
    classes: list[str]
    in_flight: int = Field(description="requests that are being answered")
    max_bytes: int = Field(description="of a request")


class Error(BaseModel):
    """What went wrong."""

    error: str


_FILE = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"files": {"type": "array", "items": _FILE}}}
            },
        },
    }
}
