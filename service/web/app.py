"""The web application: the table of calls, its documentation, and the edge around both."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from service.web.calls import CALLS
from service.web.documentation import DOCUMENTATION
from service.web.edge import Edge
from service.web.operations import routes
from service.web.problems import problem_of, problem_response
from service.wiring import Service


def create_app(service: Service) -> Starlette:
    """This function will make the ASGI application around a running service."""
    application = Starlette(
        routes=routes(service, (*CALLS, *DOCUMENTATION)),
        middleware=[Middleware(Edge, make_id=service.runtime.make_id)],
        exception_handlers={HTTPException: _unrouted},
    )
    # A provider does not follow a redirect, and a client may lose its body on one.
    application.router.redirect_slashes = False
    return application


async def _unrouted(request: Request, error: Exception) -> Response:
    """Starlette's own word for a path that is not there; every other error passes through to the edge."""
    return problem_response(request.scope, problem_of(error))
