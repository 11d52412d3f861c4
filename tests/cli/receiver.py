"""A program that takes webhooks, as a user of the service would write one: it verifies, remembers, and may fail."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Receiver:
    """Remembers what was posted; answers with the given statuses first, then with 204."""

    def __init__(self, statuses: list[int]) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self._statuses = statuses
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver._take(_lowered(self.headers), body))
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def _take(self, headers: dict[str, str], body: bytes) -> int:
        with self._news:
            self.posts.append((headers, body))
            self._news.notify_all()
            return self._statuses.pop(0) if self._statuses else 204

    def until(self, last: str, *, within_s: float = 20) -> list[tuple[dict[str, str], bytes]]:
        """Wait until an event of this type was posted, and give all posts so far."""
        with self._news:
            assert self._news.wait_for(lambda: last in self.types(), within_s), self.types()
            return list(self.posts)

    def first(self, *, within_s: float = 20) -> list[tuple[dict[str, str], bytes]]:
        """Wait until anything was posted, and give all posts so far."""
        with self._news:
            assert self._news.wait_for(lambda: bool(self.posts), within_s)
            return list(self.posts)

    def types(self) -> list[str]:
        """Give the type of each post."""
        return [json.loads(body)["type"] for _, body in self.posts]


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    """Run a receiver beside the test."""
    receiver = Receiver(list(statuses))
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()
