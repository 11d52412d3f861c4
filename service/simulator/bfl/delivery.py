"""Signed result URLs that live ten minutes, and the files behind them."""

import base64
import hmac
import re
import secrets
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.simulator.bfl.prices import image_size
from service.simulator.clock import iso, now_ms
from service.simulator.ledger import TakenRequest
from service.simulator.png import picture
from service.simulator.world import World

PREFIX = "/bfl-delivery"
_SIZE = re.compile(r"sample-(\d{1,5})x(\d{1,5})\.png")


class Delivery:
    """Signs and serves; a URL carries all that it needs, so that nothing is kept for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._key = secrets.token_bytes(32)

    def hand_out(self, request: TakenRequest) -> str:
        """Return a fresh URL; a request whose URLs expire gets a dead one, half of the time only at first."""
        request.hand_outs += 1
        dead = request.plan.expire_url and (request.hand_outs == 1 or not self._comes_back(request))
        lives_s = -1 if dead else self._world.faults.url_ttl_s
        width, height = image_size(request.input)
        path = f"/results/{request.id[:2]}/{request.id}/sample-{width}x{height}.png"
        ends = iso(now_ms() + lives_s * 1_000)
        query = {
            "se": ends,
            "sp": "r",
            "sv": "2024-11-04",
            "sr": "b",
            "rsct": "image/png",
            "sig": self._sign(path, ends),
        }
        return f"{request.base_url}{PREFIX}{path}?{urlencode(query)}"

    async def serve(self, request: Request) -> Response:
        """Answer a result URL: the file, or 403 when the signature is wrong or over."""
        path, query = f"/results/{request.path_params['path']}", request.query_params
        size = _SIZE.search(path)
        good = hmac.compare_digest(
            self._sign(path, query.get("se", "")).encode(), query.get("sig", "").encode()
        )
        if not good or size is None or datetime.fromisoformat(query["se"]).timestamp() * 1_000 < now_ms():
            self._world.tally.count("bfl", "files.refused")
            return PlainTextResponse("AuthenticationFailed", status_code=403)
        request_id = path.split("/")[-2]
        self._world.count_file("bfl", self._world.ledger.find("bfl", request_id))
        image = picture(width=int(size[1]), height=int(size[2]), name=f"bfl {request_id}")
        return Response(image, media_type="image/png")

    @staticmethod
    def _comes_back(request: TakenRequest) -> bool:
        return request.plan.dice.choose("url comes back", (True, False))

    def _sign(self, path: str, ends: str) -> str:
        return base64.b64encode(hmac.digest(self._key, f"{path}\n{ends}".encode(), sha256)).decode()
