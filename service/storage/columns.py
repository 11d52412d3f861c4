"""How our tables write their columns: text, numbers, and words that a CHECK holds them to."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, Text, text
from sqlmodel import Field

#: SQLite only counts up by itself in a column that is exactly INTEGER.
COUNTING = BigInteger().with_variant(Integer(), "sqlite")
#: PostgreSQL leaves room in each page, so that a changed row stays on it and its indexes need no new entries.
ROOM: dict[str, Any] = {"postgresql_with": {"fillfactor": 60}}


def one_of(column: str, words: Iterable[str]) -> str:
    """This function will make the condition of a CHECK that a column holds one of some words."""
    quoted = ", ".join(f"'{word}'" for word in sorted(words))
    return f"{column} IN ({quoted})"


def where(condition: str) -> dict[str, Any]:
    """This function will give the options that make an index partial, on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def text_column(*, null: bool = False, default: str | None = None, **options: Any) -> Any:
    """This function will make a column of text."""
    server_default = text(f"'{default}'") if default is not None else None
    return Field(sa_column=Column(Text, nullable=null, server_default=server_default, **options))


def number_column(*, null: bool = False, default: int | None = None, **options: Any) -> Any:
    """This function will make a column of whole numbers of 64 bits; times are milliseconds since the epoch."""
    server_default = text(str(default)) if default is not None else None
    return Field(sa_column=Column(BigInteger, nullable=null, server_default=server_default, **options))
