"""uvicorn's connection, with a way to cut it off: closing alone waits until the other side has read everything."""

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """Puts `fluxgate.abort` into each request's scope: call it to drop a reader that no longer reads."""

    def on_message_begin(self) -> None:
        """This function will begin a request."""
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["fluxgate.abort"] = self.transport.abort
