"""What the shapes of answers are made of: their base, and the fields that many of them have."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


def time(description: str) -> Any:
    """This function will make the field of a time."""
    return Field(pattern=_TIME, description=description, json_schema_extra={"format": "date-time"})


def one_of(words: Iterable[str]) -> Any:
    """This function will make the field of a text that is one of some words."""
    return Field(json_schema_extra={"enum": list[JsonValue](words)})


def page(name: str, item: type[BaseModel]) -> type[BaseModel]:
    """This function will make the shape of one page of a list."""
    return create_model(
        name,
        __config__=ConfigDict(extra="forbid"),
        data=(list[item], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, Field(description="Where to go on; null at the end.")),
    )
