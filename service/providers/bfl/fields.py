"""What a field of an input may hold. A check returns what is wrong, in words for the caller, or None.

`null` is what BFL's schemas give as the default of optional fields, so it passes everywhere but in required ones.
"""

from dataclasses import dataclass
from typing import Protocol


class Field(Protocol):
    def wrong(self, value: object) -> str | None:
        """This function will say what is wrong with a value that is not null."""
        ...


@dataclass(frozen=True, kw_only=True)
class Integer:
    lowest: int | None = None
    highest: int | None = None
    step: int = 1

    def wrong(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be an integer"
        return _outside(value, self.lowest, self.highest) or (
            f"must be a multiple of {self.step}" if value % self.step else None
        )


@dataclass(frozen=True, kw_only=True)
class Number:
    lowest: float | None = None
    highest: float | None = None

    def wrong(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number"
        return _outside(value, self.lowest, self.highest)


@dataclass(frozen=True, kw_only=True)
class Text:
    shortest: int = 0
    longest: int | None = None

    def wrong(self, value: object) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        if len(value) < self.shortest:
            return "must not be empty"
        if self.longest is not None and len(value) > self.longest:
            return f"must have at most {self.longest} characters"
        return None


@dataclass(frozen=True)
class OneOf:
    words: tuple[str, ...]

    def wrong(self, value: object) -> str | None:
        return None if value in self.words else f"must be one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Switch:
    def wrong(self, value: object) -> str | None:
        return None if isinstance(value, bool) else "must be true or false"


def _outside(value: float, lowest: float | None, highest: float | None) -> str | None:
    if lowest is not None and value < lowest:
        return f"must be at least {lowest:g}"
    if highest is not None and value > highest:
        return f"must be at most {highest:g}"
    return None
