"""Puts the fake fal together: its mounts and its callbacks."""

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from service.simulator.fal import platform, replies
from service.simulator.fal.model import image_count, picture_of
from service.simulator.fal.queue import Queue, has_key
from service.simulator.fal.webhooks import SigningKeys, Webhooks
from service.simulator.ledger import TakenRequest
from service.simulator.plan import Dice, SubmitFate
from service.simulator.provider import Message, Provider
from service.simulator.world import World

#: the account that signs all callbacks
USER_ID = "user_simulated"
ANY_METHOD = ["GET", "POST", "PUT", "DELETE", "PATCH"]


class Fal(Provider):
    """Queue, synchronous run, key set, platform API and files of fal."""

    name = "fal"
    # Documented: growing delays, at most 31 tries (older text: 10 in 2 h); the delays themselves are not.
    retry_delays_ms = tuple(min(1_000 * 2**n, 600_000) for n in range(10))
    timeout_s = 15.0
    retry_timeout_s = 120.0
    redirect_is_final = True

    def __init__(self, world: World) -> None:
        self._world = world
        self._queue = Queue(world, self)
        self._keys = SigningKeys()
        self._webhooks = Webhooks(self._keys, USER_ID)
        self._key_sets_asked = 0

    def routes(self) -> list[BaseRoute]:
        """Return fal's hosts as mounts, and `PUT /_sim/fal/keys`."""
        return [
            Mount("/fal-queue", routes=[Route("/{path:path}", self._queue.serve, methods=ANY_METHOD)]),
            Mount("/fal-run", routes=[Route("/{path:path}", self._queue.run, methods=["POST"])]),
            Route("/fal-rest/.well-known/jwks.json", self._key_set),
            Route("/fal-api/v1/models/requests/by-endpoint", self._listing),
            Route("/fal-api/v1/models/pricing", self._listing),
            Route("/fal-files/{id}/{index:int}.png", self._file),
            Route("/_sim/fal/keys", self._rotate, methods=["PUT"]),
        ]

    def refusal(self, fate: SubmitFate) -> Response:
        """Return fal's error for a failing submit."""
        return replies.refusal(fate)

    def acceptance(self, request: TakenRequest) -> Response:
        """Return fal's submit reply."""
        return replies.acceptance(request)

    def callback(self, request: TakenRequest, *, now_ms: int) -> Message:
        """Return the signed callback."""
        return self._webhooks.callback(request, now_ms=now_ms)

    def forgery(self, request: TakenRequest, *, now_ms: int) -> tuple[str, Message]:
        """Return a false callback and its kind."""
        return self._webhooks.forgery(request, now_ms=now_ms)

    async def _key_set(self, request: Request) -> Response:
        self._key_sets_asked += 1
        self._world.tally.count(self.name, "keys.asked")
        dice = Dice(f"{self._world.seed}/jwks/{self._key_sets_asked}")
        if dice.below("jwks_500", self._world.faults.jwks_500):
            return replies.error(500, "Internal Server Error")
        return JSONResponse(self._keys.key_set(), headers={"Cache-Control": "public, max-age=86400"})

    async def _rotate(self, request: Request) -> Response:
        """Make a new signing key; `{"keep_old": true}` leaves the old ones published."""
        try:
            wishes = json.loads(await request.body() or b"{}")
        except ValueError:
            wishes = None
        if not isinstance(wishes, dict):
            return JSONResponse({"error": "the body must be a JSON object"}, status_code=400)
        self._keys.rotate(keep_old=wishes.get("keep_old", True) is True)
        return JSONResponse(self._keys.key_set())

    async def _listing(self, request: Request) -> Response:
        if not has_key(request):
            error = {"type": "authorization_error", "message": "An API key is required"}
            return JSONResponse({"error": error}, status_code=401)
        if request.url.path.endswith("/pricing"):
            return platform.list_prices(request)
        return platform.list_requests(self._world, request)

    async def _file(self, request: Request) -> Response:
        taken = self._world.ledger.find(self.name, request.path_params["id"])
        index = request.path_params["index"]
        if taken is None or taken.plan.expire_url or index >= image_count(taken):
            self._world.tally.count(self.name, "files.refused")
            return replies.error(404, "File not found")
        self._world.count_file(self.name, taken)
        return Response(picture_of(taken, index), media_type="image/png")
