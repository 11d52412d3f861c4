"""What the conformance suite needs of each provider: its documents, its proofs, and where its key may go."""

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from service.domain.callback import Addressee, Received
from service.providers.base import Answer, Call, Order, Provider, Reply, Subject

NOW_MS = 1_795_000_000_000
REQUEST_ID = "023a1507-369e-46e0-bd6d-1f3446d7d5f2"
ATTEMPT_ID = "att_1"
CALLBACK_URL = "https://jobs.example/callbacks/provider/token-0123456789abcdefghijklmnop"
SECRET = "secret-0123456789abcdef0123456789abcdef"
#: More calls than any talk may make.
MOST_CALLS = 50

Concluded = TypeVar("Concluded")


def reply(status: int, document: Any, **headers: str) -> Reply:
    """Make an answer; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, body=json.dumps(document).encode())


@dataclass(frozen=True, kw_only=True)
class Ending:
    """One way for a request to end, as a poll answers it and as a callback tells it."""

    polled: list[Reply]
    #: The body of the callback; `Harness.proved` puts the proof to it.
    called_back: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Harness:
    """One provider, with its public hosts; `key` is what no foreign host may see."""

    name: str
    key: str
    make: Callable[[], Provider]
    own_domains: tuple[str, ...]
    model: str
    known_models: tuple[str, ...]
    input: dict[str, Any]
    #: The answer to a submit that was taken; its URLs begin with the given text.
    taken: Callable[[str], Reply]
    #: The name of every link that a reply may set.
    link_names: tuple[str, ...]
    #: The answer to a question, with this word as the status and everything else as if it had ended well.
    status: Callable[[Any], Reply]
    #: Words of the provider that are no end.
    words_under_way: tuple[str, ...]
    endings: dict[str, Ending]
    #: A callback with this body and every proof that it needs.
    proved: Callable[[bytes], Received]
    proof_headers: tuple[str, ...]
    #: JSON that the provider's parsers look into, for hostile variations of it.
    documents: list[Any] = field(default_factory=list)


def order(
    harness: Harness, *, callback_url: str | None = CALLBACK_URL, input: dict[str, Any] | None = None
) -> Order:
    """One attempt to be sent."""
    return Order(
        attempt_id=ATTEMPT_ID,
        model=harness.model,
        input=harness.input if input is None else input,
        callback_url=callback_url,
        secret=SECRET,
        priority="normal",
        now_ms=NOW_MS,
        deadline_ms=NOW_MS + 3_600_000,
    )


def subject(harness: Harness, links: dict[str, str] | None = None) -> Subject:
    """One request that the provider took."""
    return Subject(
        attempt_id=ATTEMPT_ID,
        model=harness.model,
        provider_request_id=REQUEST_ID,
        links=links or {},
        open=True,
        now_ms=NOW_MS,
    )


def addressee(harness: Harness, request_id: str | None = REQUEST_ID) -> Addressee:
    """The attempt that a callback's URL names."""
    return Addressee(
        attempt_id=ATTEMPT_ID, model=harness.model, provider_request_id=request_id, secret=SECRET
    )


def drive(
    talk: Generator[Call, Answer, Concluded], answers: Iterable[Answer]
) -> tuple[list[Call], Concluded]:
    """Answer the calls of a talk in turn, with the last answer for as long as it asks."""
    calls: list[Call] = []
    source = iter(answers)
    answer = next(source)
    try:
        calls.append(next(talk))
        while len(calls) < MOST_CALLS:
            calls.append(talk.send(answer))
            answer = next(source, answer)
    except StopIteration as end:
        concluded: Concluded = end.value
        return calls, concluded
    raise AssertionError("the talk does not end")


def carries(harness: Harness, call: Call) -> bool:
    """Tell whether a call shows our key to whoever gets it."""
    return any(harness.key in value for value in (*call.headers.values(), call.url, repr(call.body)))


def is_own(harness: Harness, url: str) -> bool:
    """Tell whether a URL is the provider's own: https, the usual port, one of its domains."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    domain = any(host == own or host.endswith(f".{own}") for own in harness.own_domains)
    return parts.scheme == "https" and parts.port in (None, 443) and "@" not in parts.netloc and domain
