"""What becomes of a BFL task, as polling shows it and as callbacks tell it."""

from typing import Any

from service.simulator.bfl.delivery import Delivery
from service.simulator.bfl.prices import cost
from service.simulator.ledger import State, TakenRequest
from service.simulator.plan import Outcome

#: shown while a task works: FLUX.3 brought the last two (https://api.bfl.ai/openapi.json, read 2026-11-20)
WORKING = ("Pending", "Generating", "Reasoning")


def status_of(request: TakenRequest, state: State) -> str:
    """Return BFL's word for where a task stands."""
    dice = request.plan.dice
    if state is State.QUEUED:
        return "Pending"
    if state is State.RUNNING:
        return dice.choose("working", WORKING)
    if request.plan.outcome is Outcome.MODERATED:
        return dice.choose("moderated", ("Request Moderated", "Content Moderated"))
    if request.plan.outcome is Outcome.FAILED:
        return dice.choose("failed", ("Error", "Failed"))
    return "Ready"


def details_of(status: str) -> dict[str, Any] | None:
    """Return the reasons that some moderated tasks carry."""
    return {"Moderation Reasons": ["Derivative Works Filter"]} if "Moderated" in status else None


def result_of(request: TakenRequest, delivery: Delivery) -> dict[str, Any]:
    """Return the result of a task that is Ready, with a fresh URL."""
    given = request.input
    seed = given["seed"] if isinstance(given.get("seed"), int) else request.plan.dice.number("seed") % 2**32
    return {
        "sample": delivery.hand_out(request),
        "prompt": given.get("prompt", ""),
        "seed": seed,
        "start_time": request.start_ms / 1_000,
        "end_time": request.end_ms / 1_000,
        "duration": (request.end_ms - request.start_ms) / 1_000,
    }


def settled_cost(request: TakenRequest) -> float:
    """Return the credits charged in the end: nothing for what did not work (reports differ)."""
    succeeded = request.plan.outcome in (Outcome.SUCCEEDED, Outcome.NULL_PAYLOAD)
    return cost(request.model, request.input) if succeeded else 0.0
