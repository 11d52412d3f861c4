"""Running totals by provider: they outlive the requests that they count."""

from collections import Counter

#: always shown, so that a reader never meets a missing member
FIXED = (
    "requests.accepted",
    "requests.refused",
    "requests.ended",
    "requests.canceled",
    "callbacks.sent",
    "callbacks.delivered",
    "callbacks.given_up",
    "callbacks.dropped",
    "callbacks.duplicated",
    "callbacks.forged",
    "callbacks.late",
    "callbacks.held",
    "callbacks.early",
    "callbacks.progress",
    "polls.answered",
    "polls.unknown",
    "cancels.asked",
    "results.fetched",
    "files.served",
    "files.refused",
)
#: always shown, as objects whose members appear when they are first counted
OPEN = (
    "requests.refused_by",
    "requests.submit_fates",
    "requests.outcomes",
    "callbacks.answers",
    "callbacks.forged_by",
    "callbacks.forged_answers",
    "cancels.by_answer",
)


class Tally:
    """Counters named `group.name` or `group.name.detail`."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def count(self, provider: str, name: str, by: int = 1) -> None:
        """Add to one counter of one provider."""
        self._counts.setdefault(provider, Counter())[name] += by

    def get(self, provider: str, name: str) -> int:
        """Return one counter."""
        return self._counts.get(provider, Counter())[name]

    def of(self, provider: str) -> dict[str, dict[str, object]]:
        """Return a provider's counters as nested objects."""
        return _nested(self._counts.get(provider, Counter()))

    def total(self) -> dict[str, dict[str, object]]:
        """Return the counters of all providers together."""
        together: Counter[str] = Counter()
        for counts in self._counts.values():
            together.update(counts)
        return _nested(together)


def _nested(counts: Counter[str]) -> dict[str, dict[str, object]]:
    tree: dict[str, dict[str, object]] = {}
    for name in FIXED:
        group, leaf = name.split(".")
        tree.setdefault(group, {})[leaf] = 0
    details: dict[str, dict[str, object]] = {name: {} for name in OPEN}
    for name, number in counts.items():
        group, leaf, *detail = name.split(".", 2)
        if detail:
            details.setdefault(f"{group}.{leaf}", {})[detail[0]] = number
        else:
            tree.setdefault(group, {})[leaf] = number
    for name, members in details.items():
        group, leaf = name.split(".")
        tree.setdefault(group, {})[leaf] = dict(sorted(members.items()))
    polls, accepted = counts["polls.answered"], counts["requests.accepted"]
    tree["polls"]["per_request"] = round(polls / accepted, 3) if accepted else 0.0
    return tree
