"""fal and BFL as scripts: they answer the real adapters over the real client, at their public addresses, in memory."""

import base64
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PNG = b"\x89PNG\r\n\x1a\n" + b"an image" * 40
SEED = 15860307465884635512
JSON = {"content-type": "application/json"}

Answer = httpx.Response | Exception
Scripted = Answer | Callable[[httpx.Request], Awaitable[Answer]]


def said(status: int, document: Any = None, **headers: str) -> httpx.Response:
    """Make an answer; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers={**JSON, **named}, content=json.dumps(document).encode())


@dataclass
class Taken:
    """One request that a provider took."""

    id: str
    model: str
    input: dict[str, Any]
    callback_url: str | None
    secret: str = ""
    #: What a question is answered with: a status word, or an answer as it is.
    status: str | Answer = "IN_QUEUE"
    result: Any = None
    #: When it was asked about.
    questions: list[int] = field(default_factory=list)
    cancels: int = 0
    cancel_answer: Answer | None = None

    @property
    def asked(self) -> int:
        return len(self.questions)

    @property
    def token(self) -> str:
        assert self.callback_url is not None
        return self.callback_url.rpartition("/")[2]


@dataclass
class Files:
    """Result files by URL: bytes, or an answer."""

    kept: dict[str, bytes | Answer] = field(default_factory=dict)
    fetched: list[httpx.Request] = field(default_factory=list)

    def get(self, request: httpx.Request) -> Answer:
        self.fetched.append(request)
        found = self.kept.get(str(request.url), httpx.Response(404))
        return httpx.Response(200, content=found) if isinstance(found, bytes) else found


class Fal:
    """fal's queue, key set, listing and files."""

    user = "user_1"

    def __init__(self, files: Files, now_ms: Callable[[], int]) -> None:
        self.files = files
        self.now_ms = now_ms
        self.signer = Ed25519PrivateKey.generate()
        self.published = [self.signer]
        #: Answers to the next submits; without any a submit is taken.
        self.submits: deque[Scripted] = deque()
        self.taken: dict[str, Taken] = {}
        self.sent: list[httpx.Request] = []
        self.jwks: Answer | None = None
        self.jwks_asked = 0
        self.listing: Answer | None = None

    async def __call__(self, request: httpx.Request) -> Answer:
        path = request.url.path
        if path.endswith("/jwks.json"):
            self.jwks_asked += 1
            return self.jwks if self.jwks is not None else said(200, self.key_set())
        if path.endswith("/requests/by-endpoint"):
            return self.listing if self.listing is not None else self.listed()
        if request.method == "POST":
            return await self._submit(request)
        return self._about(request, path)

    async def _submit(self, request: httpx.Request) -> Answer:
        self.sent.append(request)
        if not self.submits:
            return self.accept(request)
        scripted = self.submits.popleft()
        return await scripted(request) if callable(scripted) else scripted

    def take(self, request: httpx.Request) -> Taken:
        """Take a submit without answering it."""
        query = parse_qs(urlsplit(str(request.url)).query)
        url = query["fal_webhook"][0] if "fal_webhook" in query else None
        model = request.url.path.strip("/")
        taken = Taken(str(uuid4()), model, json.loads(request.content), url)
        self.taken[taken.id] = taken
        return taken

    def accept(self, request: httpx.Request) -> httpx.Response:
        taken = self.take(request)
        return self.acceptance(taken)

    def acceptance(self, taken: Taken) -> httpx.Response:
        return said(200, {"request_id": taken.id, "status": "IN_QUEUE", "queue_position": 0})

    def _about(self, request: httpx.Request, path: str) -> Answer:
        parts = path.split("/requests/")[1].split("/")
        taken = self.taken.get(parts[0])
        if taken is None:
            return said(404, {"detail": "Request not found"})
        if parts[-1] == "cancel":
            taken.cancels += 1
            return taken.cancel_answer or said(202, {"status": "CANCELLATION_REQUESTED"})
        if parts[-1] == "status":
            taken.questions.append(self.now_ms())
            if not isinstance(taken.status, str):
                return taken.status
            return said(200, {"status": taken.status, "request_id": taken.id})
        result = taken.result
        return result if isinstance(result, httpx.Response | Exception) else said(200, result)

    def succeed(self, taken: Taken, *, files: int = 1) -> dict[str, Any]:
        """End a request well; give what the model made."""
        images = []
        for place in range(files):
            url = f"https://v3.fal.media/files/{taken.id}-{place}.png"
            self.files.kept.setdefault(url, PNG + str(place).encode())
            images.append({"url": url, "content_type": "image/png", "width": 8, "height": 8})
        taken.status, taken.result = "COMPLETED", {"images": images, "seed": SEED}
        return taken.result

    def key_set(self) -> dict[str, Any]:
        raw = [key.public_key().public_bytes_raw() for key in self.published]
        return {"keys": [{"x": base64.urlsafe_b64encode(x).decode().rstrip("=")} for x in raw]}

    def listed(self, *more: dict[str, Any]) -> httpx.Response:
        return said(200, {"items": list(more), "has_more": False, "next_cursor": None})

    def signed(
        self,
        document: Any,
        *,
        now_ms: int,
        request_id: str | None = None,
        user: str | None = None,
        signer: Ed25519PrivateKey | None = None,
    ) -> tuple[dict[str, str], bytes]:
        """Make a callback as fal signs it."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        named = request_id if request_id is not None else document["request_id"]
        values = (named, user or self.user, str(now_ms // 1_000))
        message = "\n".join((*values, sha256(body).hexdigest())).encode()
        texts = (*values, (signer or self.signer).sign(message).hex())
        names = ("request-id", "user-id", "timestamp", "signature")
        headers = {f"x-fal-webhook-{name}": text for name, text in zip(names, texts, strict=True)}
        return headers, body

    def callback(self, taken: Taken, *, now_ms: int, **how: Any) -> tuple[dict[str, str], bytes]:
        """Make the true callback of a request that ended well."""
        document = {"request_id": taken.id, "gateway_request_id": taken.id, "status": "OK"}
        return self.signed({**document, "payload": taken.result}, now_ms=now_ms, **how)


class Bfl:
    """BFL's tasks and files."""

    def __init__(self, files: Files, now_ms: Callable[[], int]) -> None:
        self.files = files
        self.now_ms = now_ms
        self.submits: deque[Scripted] = deque()
        self.taken: dict[str, Taken] = {}
        self.sent: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> Answer:
        if request.method == "POST":
            self.sent.append(request)
            if self.submits:
                scripted = self.submits.popleft()
                return await scripted(request) if callable(scripted) else scripted
            return self.accept(request)
        taken = self.taken.get(request.url.params["id"])
        if taken is None:
            return said(404, {"detail": "Task not found"})
        taken.questions.append(self.now_ms())
        if not isinstance(taken.status, str):
            return taken.status
        return said(200, self.document(taken))

    def take(self, request: httpx.Request) -> Taken:
        given = json.loads(request.content)
        url, secret = given.pop("webhook_url", None), given.pop("webhook_secret", "")
        taken = Taken(str(uuid4()), request.url.path.rpartition("/")[2], given, url, secret, "Pending")
        self.taken[taken.id] = taken
        return taken

    def accept(self, request: httpx.Request) -> httpx.Response:
        return self.acceptance(self.take(request))

    def acceptance(self, taken: Taken) -> httpx.Response:
        link = f"https://api.bfl.ai/v1/get_result?id={taken.id}"
        return said(200, {"id": taken.id, "polling_url": link, "cost": 3.0})

    def document(self, taken: Taken) -> dict[str, Any]:
        return {"id": taken.id, "status": taken.status, "result": taken.result}

    def succeed(self, taken: Taken) -> None:
        url = f"https://delivery-eu.bfl.ai/{taken.id}.png?sig=1"
        self.files.kept.setdefault(url, PNG)
        taken.status, taken.result = "Ready", {"sample": url, "seed": SEED}

    def callback(self, taken: Taken, **members: Any) -> tuple[dict[str, str], bytes]:
        """Make the true callback of a task."""
        body = json.dumps({**self.document(taken), **members}).encode()
        return {"x-webhook-secret": taken.secret}, body


class Providers:
    """Both, behind one transport."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.files = Files()
        self.fal = Fal(self.files, now_ms)
        self.bfl = Bfl(self.files, now_ms)
        self.keyed_hosts: set[str] = set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if "authorization" in request.headers or "x-key" in request.headers:
            self.keyed_hosts.add(host)
        if host in ("v3.fal.media", "delivery-eu.bfl.ai"):
            answer = self.files.get(request)
        elif host == "api.bfl.ai":
            answer = await self.bfl(request)
        elif host in ("queue.fal.run", "api.fal.ai", "rest.fal.ai"):
            answer = await self.fal(request)
        else:
            answer = httpx.ConnectError("no such host")
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
