"""What the history keeps of a fact: enough to explain the move, without prompts and without results."""

from collections.abc import Sequence
from typing import Any

from service.domain import facts
from service.domain.money import usd_text
from service.domain.results import Image
from service.domain.timestamps import maybe_rfc3339, rfc3339


def detail_of(fact: facts.Fact) -> dict[str, Any]:
    """This function will say what a fact brought, as a small JSON object."""
    detail: dict[str, Any] = {} if fact.attempt_id is None else {"attempt_id": fact.attempt_id}
    match fact:
        case facts.SubmitPostponed():
            detail |= {
                "code": fact.waiting.code.value,
                "message": fact.waiting.message,
                "next_try_at": rfc3339(fact.waiting.next_try_ms),
            }
        case facts.SubmitAccepted():
            detail |= {"provider_request_id": fact.provider_request_id, "cost_usd": usd_text(fact.cost_usd)}
        case facts.SubmitUnknown():
            detail |= {"reason": fact.reason}
        case facts.ProviderQueued():
            detail |= {"queue_position": fact.queue_position}
        case facts.ProviderSucceeded():
            detail |= {"images": len(fact.output.images), "seed": fact.output.seed}
            detail |= _concluded(fact)
        case facts.ProviderFailed() | facts.ProviderBlocked():
            detail |= {
                "code": fact.error.code.value,
                "message": fact.error.message,
                "provider_status": fact.error.provider_status,
            }
            detail |= _concluded(fact)
        case facts.CancelAnswered():
            detail |= {"answer": fact.answer}
        case facts.CallbackNotUsed():
            detail |= {"callback_id": fact.callback_id, "verdict": fact.verdict, "reason": fact.reason}
        case facts.ResultKept():
            detail |= {"files": _files(fact.images)}
        case facts.ResultLost():
            detail |= {"reason": fact.reason, "files": _files(fact.images)}
    return detail


def _files(images: Sequence[Image]) -> list[dict[str, Any]]:
    return [{"artifact_id": image.artifact_id, "sha256": image.sha256} for image in images]


def _concluded(fact: facts.ProviderVerdict) -> dict[str, Any]:
    return {
        "cost_usd": usd_text(fact.cost_usd),
        "provider_completed_at": maybe_rfc3339(fact.provider_completed_ms),
    }
