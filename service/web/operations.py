"""What the service answers to: one description of a call serves its routing, its access and its documentation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.web.access import authorized
from service.web.parameters import Parameter, read_query
from service.web.problems import Problem
from service.web.visit import Visit
from service.wiring import Service

Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One status that a call may give when all goes well: what it means, its body, its headers of note."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call. `scopes`: any one of them suffices; none means that the call is open to everybody."""

    method: str
    path: str
    name: str
    summary: str
    handle: Handler
    answers: Mapping[int, Answer]
    scopes: tuple[str, ...] = ()
    #: Whether the operator may open the call by a setting.
    opened: Callable[[Service], bool] = lambda _: False
    parameters: Sequence[Parameter] = ()
    #: `metadata.KEY=value` filters too.
    metadata: bool = False
    #: Open calls ignore what they do not know in a query: balancers and providers add things of their own.
    strict: bool = True
    headers: Sequence[tuple[str, Mapping[str, Any], str]] = ()
    body: type[BaseModel] | None = None
    raw_body: bool = False
    #: Statuses beside those that follow from the rest.
    problems: Sequence[int] = ()


class Resource:
    """Everything that one path answers to, as an ASGI application."""

    def __init__(self, service: Service, operations: Sequence[Operation]) -> None:
        self.operations = {operation.method: operation for operation in operations}
        self._service = service
        self._allowed = {
            operation.method: {parameter.name: parameter for parameter in operation.parameters}
            for operation in operations
        }
        if "GET" in self.operations:
            self.operations["HEAD"] = self.operations["GET"]
            self._allowed["HEAD"] = self._allowed["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """This function will let a caller in, hand the request to its handler and send the answer.

        :raises Problem: if the method, the key or the query is wrong.
        """
        method: str = scope["method"]
        operation = self.operations.get(method)
        if operation is None:
            allow = ", ".join(sorted(self.operations))
            raise Problem("method_not_allowed", f"this path takes {allow}", headers={"Allow": allow})
        visit = Visit(service=self._service, scope=scope, receive=receive)
        if operation.scopes and not operation.opened(self._service):
            visit.key = await authorized(visit, operation.scopes)
        if operation.strict:
            visit.query = read_query(
                scope["query_string"], self._allowed[method], metadata=operation.metadata
            )
        response = await operation.handle(visit)
        await response(scope, receive, send)


def routes(service: Service, operations: Sequence[Operation]) -> list[Route]:
    """This function will make one route for each path, in the order in which paths first appear."""
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    return [Route(path, Resource(service, group)) for path, group in by_path.items()]
