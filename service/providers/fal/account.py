"""Our account at fal: the key, where it may go, and how what fal says is quoted without giving secrets away."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.domain import exact_json
from service.providers.base import Subject
from service.providers.fal.urls import Urls, model_error, readable_id

#: The token in our callback URL, plain or percent-encoded.
_TOKEN = re.compile(r"(callbacks(?:/|%2F)[a-z]+(?:/|%2F))[A-Za-z0-9._~-]+", re.IGNORECASE)
#: A shorter "secret" would strike out ordinary words.
_SHORTEST_SECRET = 8
_LONGEST_TEXT = 2_000
_MOST_MEMBERS = 50
_DEEPEST = 8
#: Lists and objects in all; an answer may have millions of them.
_MOST_VALUES = 500
_LARGEST_QUOTE = 32_768


@dataclass(frozen=True, kw_only=True)
class Account:
    key: str = field(repr=False)
    urls: Urls

    def headers(self, **more: str) -> dict[str, str]:
        """This function will return the headers of a request with our key."""
        return {"Authorization": f"Key {self.key}", "Accept": "application/json", **more}

    def links(self, subject: Subject) -> Mapping[str, str] | None:
        """This function will return the request's URLs: those fal named where they are its own, else ours.

        None when neither may be used: the model or the request id cannot be a path.
        """
        if model_error(subject.model) or readable_id(subject.provider_request_id) is None:
            return None
        built = self.urls.links(subject.model, subject.provider_request_id)
        return {
            name: subject.links[name] if self.urls.may_carry_key(subject.links.get(name)) else url
            for name, url in built.items()
        }

    def quote(self, body: Any) -> Any:
        """This function will return what fal said as JSON of bounded size, our key and callback token struck out.

        The shape stays (`detail[].input` is still there), so that prompts can be found and cut elsewhere.
        """
        quoted = self._quote(body, _DEEPEST, iter(range(_MOST_VALUES)))
        if len(exact_json.dumps(quoted)) <= _LARGEST_QUOTE:
            return quoted
        return {"truncated": True}

    def _quote(self, value: Any, depth: int, left: Iterator[int]) -> Any:
        if isinstance(value, str):
            return self._strike(value)
        if not isinstance(value, dict | list):
            return value
        if depth == 0 or next(left, None) is None:
            return "…"
        if isinstance(value, dict):
            members = list(value.items())[:_MOST_MEMBERS]
            return {self._strike(name): self._quote(item, depth - 1, left) for name, item in members}
        return [self._quote(item, depth - 1, left) for item in value[:_MOST_MEMBERS]]

    def _strike(self, text: str) -> str:
        for secret in (self.key, self.key.partition(":")[2]):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        text = _TOKEN.sub(r"\1***", text).replace("\x00", "\ufffd")
        return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
