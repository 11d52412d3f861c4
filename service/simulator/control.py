"""The simulator's own routes under `/_sim`: the dials, the totals, the requests."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from service.simulator.faults import FaultError, as_dict, update
from service.simulator.world import World


def control_routes(world: World) -> list[BaseRoute]:
    """Return the routes that watch and steer a simulation."""

    async def faults(request: Request) -> Response:
        if request.method == "PUT":
            try:
                world.faults = update(world.faults, await _object(request))
            except FaultError as error:
                return JSONResponse({"error": str(error), "dial": error.dial}, status_code=422)
            except ValueError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(as_dict(world.faults))

    async def stats(request: Request) -> Response:
        return JSONResponse(world.stats())

    async def requests(request: Request) -> Response:
        return JSONResponse({"data": world.rows(request.query_params.get("provider"))})

    return [
        Route("/_sim/faults", faults, methods=["GET", "PUT"]),
        Route("/_sim/stats", stats),
        Route("/_sim/requests", requests),
    ]


async def _object(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is not JSON") from error
    if not isinstance(document, dict):
        raise ValueError("the body must be a JSON object of dials")
    return document
