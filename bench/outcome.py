"""What a measurement gives: one line of the table."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Line:
    """A figure beside its limit and its goal. `goal` is for `ratio` where there is a limit, else for `figure`."""

    what: str
    database: str
    figure: float
    unit: str
    limit: float | None = None
    limit_is: str = ""
    goal: float | None = None
    #: Whether less is better.
    at_most: bool = False
    #: A count, which the first release may not miss by half.
    strict: bool = False
    #: p50, p95, p99 and max in milliseconds.
    took_ms: dict[str, float] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The figure in relation to its limit."""
        return self.figure / self.limit if self.limit else None

    @property
    def for_now(self) -> float | None:
        """What the first release has to reach: half of a rate, twice a time."""
        if self.goal is None or self.strict:
            return self.goal
        return self.goal * 2 if self.at_most else self.goal / 2

    def as_json(self) -> dict[str, Any]:
        """This function will give the line as JSON."""
        return {**asdict(self), "ratio": self.ratio, "goal_for_now": self.for_now}
