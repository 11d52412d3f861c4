"""What happens to whose callback: decided before the first job is sent, so that no run shows too little.

Every provider gets the parts in the same order: its first job's callback comes, its second one's is lost.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MODELS: Mapping[str, str] = {"fal": "fal-ai/flux-2", "bfl": "flux-2-pro"}
#: With fewer jobs a provider would not have both a callback that comes and one that is lost.
FEWEST_JOBS = 2 * len(MODELS)
#: The first question about a job whose callback has not come; every part below is timed around it.
POLL_AFTER_S = 2.0

_PROMPTS = ("a lighthouse in fog", "a fox on a bicycle", "an orange on a blue table", "rain over a harbour")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One way in which a callback travels; `dials` are those of the simulator."""

    name: str
    dials: Mapping[str, object] = field(default_factory=dict)


PARTS = (
    Part(name="arrives", dials={"queue_ms": 100, "run_ms": 300}),
    Part(name="lost, and a forged one", dials={"drop": 1, "forge": 1}),
    Part(name="twice or more", dials={"queue_ms": 150, "run_ms": 450, "duplicate": 1}),
    Part(name="lost", dials={"drop": 1}),
    Part(name="arrives, and a forged one", dials={"forge": 1}),
    # Later than the first question: what it tells is known by then.
    Part(name="late", dials={"late": 1, "late_ms": 3_000}),
)
#: Turned back before each job. BFL's callbacks prove themselves in both ways that its documents name.
_BASE: Mapping[str, object] = {
    "drop": 0, "duplicate": 0, "forge": 0, "late": 0, "late_ms": 0, "reorder": 0, "queue_ms": None, "run_ms": None,
    "retry_scale": 0.1, "omit_polling_url": 0.5,
}  # fmt: skip
_BFL_AUTH = ("secret", "hmac")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One job: what is asked for, and what its provider does to the callback."""

    number: int
    provider: str
    part: str
    dials: Mapping[str, object]
    body: Mapping[str, Any]


def scenes(jobs: int) -> Iterator[Scene]:
    """This function will lay out the jobs, the providers taking turns."""
    providers = list(MODELS)
    for number in range(1, jobs + 1):
        provider = providers[(number - 1) % len(providers)]
        turn = (number - 1) // len(providers)
        part = PARTS[turn % len(PARTS)]
        auth = _BFL_AUTH[turn % len(_BFL_AUTH)]
        yield Scene(
            number=number,
            provider=provider,
            part=part.name,
            dials={**_BASE, **part.dials, "bfl_auth": auth},
            body={
                "provider": provider,
                "model": MODELS[provider],
                "input": {"prompt": _PROMPTS[turn % len(_PROMPTS)]},
                "metadata": {"demo": str(number)},
            },
        )
