"""The limits: endpoints of the same server kind that do nothing but what cannot be left out.

`/parse` reads a body and parses it; `/verify` verifies one Ed25519 signature over it. Neither stores anything.
Also serves the key set, so that the service under test has somebody to ask.
"""

import asyncio
import sys

import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench import fal

_PUBLIC = fal.private_key().public_key()


async def parse(request: Request) -> Response:
    """This function will parse the body."""
    orjson.loads(await request.body())
    return Response(b'{"parsed":true}', media_type="application/json")


async def verify(request: Request) -> Response:
    """This function will verify the signature, with a key that was made once.

    :raises InvalidSignature: if it does not fit; the answer is 500 then and the bench stops.
    """
    body, headers = await request.body(), request.headers
    said = fal.message(
        headers["x-fal-webhook-request-id"],
        headers["x-fal-webhook-user-id"],
        headers["x-fal-webhook-timestamp"],
        body,
    )
    _PUBLIC.verify(bytes.fromhex(headers["x-fal-webhook-signature"]), said)
    return Response(b'{"verified":true}', media_type="application/json")


async def keys(request: Request) -> Response:
    """This function will give the key set."""
    return Response(fal.key_set(), media_type="application/json")


def main(port: int) -> None:
    """This function will serve until SIGTERM."""
    app = Starlette(
        routes=[
            Route("/parse", parse, methods=["POST"]),
            Route("/verify", verify, methods=["POST"]),
            Route("/jwks.json", keys),
        ]
    )
    config = uvicorn.Config(
        app,
        port=port,
        http="httptools",
        loop="uvloop",
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
