"""fal.ai as a `Provider`: what each method does stands in the file of its name."""

from collections.abc import Generator, Mapping
from decimal import Decimal
from typing import Any

from service.domain.callback import Addressee, Judgement, Received
from service.domain.facts import CancelAnswered, Fact
from service.domain.failures import FieldError
from service.domain.schedule import Pace
from service.providers.base import Answer, Call, KeysNeeded, Listed, NoNews, Order, Search, Subject, Submitted
from service.providers.fal import ask, cancel, listing, models, submit
from service.providers.fal.account import Account
from service.providers.fal.callbacks import Judge
from service.providers.fal.jwks import KeyCache
from service.providers.fal.urls import Urls


class Fal:
    """See `Provider`. URLs are the operator's own; `user_id` pins the account that callbacks must come from.

    :raises ValueError: if the key is empty.
    """

    name = "fal"
    has_keys = True
    #: Results of 10 KB and more are kept for about 6 minutes (https://fal.ai/docs/inference-api/queue/submit,
    #: read 2026-11-20), so no question waits longer than a third of that.
    pace = Pace(first_cap_ms=120_000, interval_ms=4_000, interval_cap_ms=60_000)

    def __init__(
        self,
        *,
        key: str,
        queue_url: str,
        run_url: str,
        jwks_url: str,
        platform_url: str,
        user_id: str | None = None,
    ) -> None:
        if not key.strip():
            raise ValueError("fal needs a key")
        urls = Urls(
            queue=queue_url.rstrip("/"),
            run=run_url.rstrip("/"),
            jwks=jwks_url,
            platform=platform_url.rstrip("/"),
        )
        self._account = Account(key=key.strip(), urls=urls)
        self._keys = KeyCache(jwks_url)
        self._judge = Judge(account=self._account, keys=self._keys, user_id=user_id)

    def validate(self, model: str, input: Mapping[str, Any]) -> list[FieldError]:
        return models.validate(model, input)

    def estimate_usd(self, model: str, input: Mapping[str, Any]) -> Decimal | None:
        endpoint = models.ENDPOINTS.get(model)
        return endpoint.price.estimate(input) if endpoint and endpoint.price else None

    def submit(self, order: Order) -> Generator[Call, Answer, Submitted]:
        return submit.submit(self._account, order)

    def ask(self, subject: Subject) -> Generator[Call, Answer, tuple[Fact, ...] | NoNews]:
        return ask.ask(self._account, subject)

    def cancel(self, subject: Subject) -> Generator[Call, Answer, CancelAnswered | NoNews]:
        return cancel.cancel(self._account, subject)

    def find(self, search: Search) -> Generator[Call, Answer, tuple[Listed, ...]] | None:
        return listing.find(self._account, search)

    def judge(self, callback: Received, addressee: Addressee) -> Judgement | KeysNeeded:
        return self._judge.judge(callback, addressee)

    def wants_keys(self, why: KeysNeeded | None, now_ms: int) -> bool:
        return self._keys.wants(why, now_ms)

    def fetch_keys(self, now_ms: int) -> Generator[Call, Answer, bool]:
        return self._keys.fetch(now_ms)

    def may_download(self, url: str) -> bool:
        return self._account.urls.may_download(url)
