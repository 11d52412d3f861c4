"""fal's platform API: the requests of an endpoint and the prices.

https://fal.ai/docs/platform-apis/v1/models/requests/by-endpoint.md, read 2026-11-20.
"""

import base64
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.simulator.clock import iso, now_ms
from service.simulator.fal.model import answer_of
from service.simulator.ledger import TakenRequest
from service.simulator.world import World

DAY_MS = 86_400_000
MOST_ITEMS = 100
#: USD per megapixel (https://fal.ai/models/fal-ai/flux-2/llms.txt, read 2026-11-20)
PRICES = {
    "fal-ai/flux-2": 0.012,
    "fal-ai/flux-2/edit": 0.012,
    "fal-ai/flux-2/flash": 0.005,
    "fal-ai/flux-2/turbo": 0.008,
    "fal-ai/flux-2/lora": 0.021,
    "fal-ai/flux-2-pro": 0.03,
    "fal-ai/flux-2-pro/edit": 0.03,
    "fal-ai/flux-2-max": 0.07,
    "fal-ai/flux-2-max/edit": 0.07,
    "fal-ai/flux-2-flex": 0.05,
    "fal-ai/flux-2-flex/edit": 0.05,
    "fal-ai/flux-2/klein/4b": 0.005,
    "fal-ai/flux-2/klein/9b": 0.006,
}


def list_requests(world: World, request: Request) -> Response:
    """Answer the listing: ended requests only, newest end first."""
    query = request.query_params
    endpoints = _ids(request)
    now = now_ms()
    try:
        start = _time(query.get("start"), now - (90 if "request_id" in query else 1) * DAY_MS)
        end = _time(query.get("end"), now)
        limit = int(query.get("limit", "50"))
        skip = int(base64.b64decode(query["cursor"], validate=True)) if "cursor" in query else 0
    except ValueError as error:
        return _invalid(str(error))
    if not endpoints or not 1 <= limit <= MOST_ITEMS:
        return _invalid("endpoint_id is required, limit lies in 1..100")
    found = [
        taken
        for taken in world.ledger.requests("fal")
        if taken.ended
        and taken.model in endpoints
        and start <= taken.end_ms <= end
        and query.get("request_id") in (None, taken.id)
        and query.get("status") in (None, _status(taken))
    ]
    found.sort(key=lambda taken: taken.end_ms, reverse=True)
    page, more = found[skip : skip + limit], len(found) > skip + limit
    payloads = "payloads" in ",".join(query.getlist("expand")).split(",")
    return JSONResponse(
        {
            "items": [_item(taken, payloads=payloads) for taken in page],
            "next_cursor": base64.b64encode(str(skip + limit).encode()).decode() if more else None,
            "has_more": more,
        }
    )


def list_prices(request: Request) -> Response:
    """Answer the price list; endpoints without a known price are left out."""
    endpoints = _ids(request)
    if not 1 <= len(endpoints) <= 50:
        return _invalid("1 to 50 endpoint_id are required")
    prices = [
        {"endpoint_id": name, "unit_price": PRICES[name], "unit": "megapixels", "currency": "USD"}
        for name in endpoints
        if name in PRICES
    ]
    return JSONResponse({"prices": prices, "next_cursor": None, "has_more": False})


def _ids(request: Request) -> list[str]:
    given = ",".join(request.query_params.getlist("endpoint_id")).split(",")
    return [name.strip() for name in given if name.strip()]


def _time(text: str | None, otherwise_ms: int) -> int:
    if text is None:
        return otherwise_ms
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def _status(taken: TakenRequest) -> str:
    code = answer_of(taken).status
    return "success" if code < 400 else "user_error" if code < 500 else "error"


def _item(taken: TakenRequest, *, payloads: bool) -> dict[str, Any]:
    answer = answer_of(taken)
    item: dict[str, Any] = {
        "request_id": taken.id,
        "endpoint_id": taken.model,
        "sent_at": iso(taken.accepted_ms),
        "started_at": None if taken.start_timed_out else iso(taken.start_ms),
        "ended_at": iso(taken.end_ms),
        "status_code": answer.status,
        "duration": (taken.end_ms - taken.start_ms) / 1_000,
    }
    if payloads:
        stored = taken.headers.get("x-fal-store-io") != "0"
        item |= {
            "json_input": taken.input if stored else None,
            "json_output": answer.body if stored else None,
        }
    return item


def _invalid(message: str) -> Response:
    return JSONResponse({"error": {"type": "validation_error", "message": message}}, status_code=400)
