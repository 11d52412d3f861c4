"""Submitting jobs: what is accepted, what is refused with which path, and what a repeated key gives."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import httpx

from service.domain.targets import UrlRefused
from tests.paths.visitors import BFL_JOB, FAL_JOB, House, exact, paths_of, problem, submit

BIG = 15860307465884635512
BIGGER = 123456789012345678901234567890


def body(**changes: Any) -> bytes:
    return json.dumps({**BFL_JOB, **changes}).encode()


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in BFL_JOB.items() if name != field}).encode()


#: Each body that is not a job, and the paths that are blamed.
WRONG_BODIES: dict[str, tuple[bytes, list[str]]] = {
    "no body": (b"", [""]),
    "not json": (b"{", [""]),
    "two values": (b"{}{}", [""]),
    "not utf-8": (b'{"provider":"\xff"}', [""]),
    "a byte order mark": (b"\xef\xbb\xbf" + body(), [""]),
    "a raw NUL": (b'{"provider":"\x00"}', [""]),
    "NaN": (b'{"provider":NaN}', [""]),
    "a number beyond doubles": (b'{"input":{"x":1e400}}', [""]),
    "a lone surrogate": (b'{"model":"\\ud800"}', [""]),
    "a lone surrogate beside a big number": (b'{"model":"\\ud800","input":{"s":12345678901234567890123}}', [""]),
    "a list": (b"[]", [""]),
    "a text": (b'"job"', [""]),
    "null": (b"null", [""]),
    "a number": (b"1", [""]),
    "deep nesting": (b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", [""]),
    "nesting that parses": (b'{"input":{"x":' + b"[" * 200 + b"]" * 200 + b"}}", [""]),
    "a huge integer": (b'{"input":{"x":' + b"9" * 5000 + b"}}", [""]),
    "nothing in it": (b"{}", ["provider", "model", "input"]),
    "no provider": (without("provider"), ["provider"]),
    "a provider that nobody knows": (body(provider="nobody"), ["provider"]),
    "a provider that is not built": (body(provider="replicate"), ["provider"]),
    "a provider that is no text": (body(provider=["bfl"]), ["provider"]),
    "no model": (without("model"), ["model"]),
    "an empty model": (body(model=""), ["model"]),
    "a long model": (body(model="m" * 201), ["model"]),
    "a model that is a number": (body(model=7), ["model"]),
    "a model that climbs": (body(**{**FAL_JOB, "model": "fal-ai/../secret"}), ["model"]),
    "no input": (without("input"), ["input"]),
    "an input that is a list": (body(input=[]), ["input"]),
    "an input that is null": (body(input=None), ["input"]),
    "an input that the model refuses": (body(input={"prompt": 7}), ["input.prompt"]),
    "a webhook of the caller's own": (body(input={"prompt": "x", "webhook_url": "https://x"}), ["input.webhook_url"]),
    "a secret of the caller's own": (
        body(input={"prompt": "x", "webhook_secret": "s"}),
        ["input.webhook_secret"],
    ),
    "sync mode": (body(**{**FAL_JOB, "input": {"prompt": "x", "sync_mode": True}}), ["input.sync_mode"]),
    "a deadline too short": (body(deadline_s=9), ["deadline_s"]),
    "a deadline too long": (body(deadline_s=86401), ["deadline_s"]),
    "a deadline beyond 64 bits": (b'{"provider":"bfl","model":"flux-2-pro","input":{"prompt":"x"},"deadline_s":1'
                                  + b"0" * 40 + b"}", ["deadline_s"]),
    "a deadline of the right text": (body(deadline_s="60"), ["deadline_s"]),
    "a deadline with a fraction": (body(deadline_s=60.5), ["deadline_s"]),
    "a deadline that is true": (body(deadline_s=True), ["deadline_s"]),
    "an unknown priority": (body(priority="high"), ["priority"]),
    "an unknown on_uncertain": (body(on_uncertain="retry"), ["on_uncertain"]),
    "an archive that is no bool": (body(archive="yes"), ["archive"]),
    "metadata that is a list": (body(metadata=[]), ["metadata"]),
    "metadata of 17 pairs": (body(metadata={str(n): "v" for n in range(17)}), ["metadata"]),
    "metadata with a number": (body(metadata={"order": 7}), ["metadata.order"]),
    "metadata with a long value": (body(metadata={"order": "v" * 501}), ["metadata.order"]),
    "metadata with an empty key": (body(metadata={"": "v"}), ["metadata."]),
    "metadata with a long key": (body(metadata={"k" * 41: "v"}), ["metadata." + "k" * 41]),
    "a route": (body(route=["bfl"]), ["route"]),
    "the cache": (body(cache="use"), ["cache"]),
    "an unknown cache": (body(cache="maybe"), ["cache"]),
    "a highest cost": (body(max_cost_usd="0.1"), ["max_cost_usd"]),
    "a webhook to ourselves": (body(webhook_url="https://127.0.0.1/hook"), ["webhook_url"]),
    "a webhook without TLS": (body(webhook_url="http://93.184.215.14/hook"), ["webhook_url"]),
    "a webhook that is no URL": (body(webhook_url="hook"), ["webhook_url"]),
    "an empty webhook": (body(webhook_url=""), ["webhook_url"]),
    "a webhook that is a list": (body(webhook_url=["https://93.184.215.14"]), ["webhook_url"]),
    "a long webhook": (body(webhook_url="https://93.184.215.14/" + "x" * 2048), ["webhook_url"]),
    "an unknown field": (body(promt="x"), ["promt"]),
    "several at once": (body(deadline_s=1, priority="x", extra=1), ["deadline_s", "priority", "extra"]),
    "a NUL in the model": (body(model="a\0b"), ["model"]),
    "a NUL in metadata": (body(metadata={"order": "a\0"}), ["metadata.order"]),
    "a NUL in a key of metadata": (body(metadata={"a\0": "b"}), ["metadata.a\0"]),
    "a NUL deep in the input": (body(input={"prompt": "x", "list": [{"deep": "\0"}]}), ["input.list.0.deep"]),
    "a NUL in a key of the input": (body(input={"a\0": 1}), ["input.a\0"]),
}  # fmt: skip


async def test_what_is_no_job_is_refused_with_its_path_and_leaves_nothing(house: House) -> None:
    visitor = await house.visitor()
    before = await house.rows()
    seen: dict[str, Any] = {}
    for name, (content, _) in WRONG_BODIES.items():
        response = await visitor.post(
            "/v1/jobs", content=content, headers={"Content-Type": "application/json"}
        )
        seen[name] = sorted(paths_of(problem(response, 422, "invalid_input")))
    assert seen == {name: sorted(paths) for name, (_, paths) in WRONG_BODIES.items()}
    assert await house.rows() == before


async def test_what_is_not_built_yet_says_so(house: House) -> None:
    visitor = await house.visitor()
    for field, value in {
        "route": ["bfl"],
        "cache": "use",
        "max_cost_usd": "1",
        "provider": "together",
    }.items():
        response = await visitor.post("/v1/jobs", json={**BFL_JOB, field: value})
        document = problem(response, 422, "invalid_input")
        assert document["errors"] == [{"path": field, "message": "is not available yet"}]


async def test_a_provider_without_a_key_names_the_setting(house: House) -> None:
    visitor = await house.visitor()
    providers = dict(house.service.runtime.providers)
    del providers["fal"]
    object.__setattr__(house.service.runtime, "providers", providers)
    document = problem(await visitor.post("/v1/jobs", json=FAL_JOB), 422, "invalid_input")
    assert paths_of(document) == ["provider"]
    assert "FAL_KEY" in document["errors"][0]["message"]


async def test_an_accepted_job_is_there_with_everything_that_was_asked(house: House) -> None:
    visitor = await house.visitor()
    asked = {
        **BFL_JOB,
        "deadline_s": 600,
        "priority": "low",
        "on_uncertain": "resubmit",
        "archive": False,
        "cache": "off",
        "metadata": {"order": "7", "ünïcode": "✓"},
    }
    response = await visitor.post("/v1/jobs", json=asked)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert {name: job[name] for name in asked if name != "cache"} == {
        name: value for name, value in asked.items() if name != "cache"
    }
    assert (job["object"], job["state"], job["version"], job["attempts"]) == ("job", "accepted", 1, [])
    assert (await visitor.get(response.headers["location"])).json() == job


async def test_a_webhook_url_is_kept_with_its_job(house: House) -> None:
    visitor = await house.visitor()
    url = "https://93.184.215.14/hook?job=7"
    posted = await visitor.post("/v1/jobs", json={**BFL_JOB, "webhook_url": url})
    assert (posted.status_code, posted.json()["webhook_url"]) == (202, url)
    assert (await visitor.get(posted.headers["location"])).json() == posted.json()
    assert (await visitor.post("/v1/jobs", json={**BFL_JOB, "webhook_url": None})).json()[
        "webhook_url"
    ] is None


async def test_a_repeat_finds_its_job_although_its_webhook_url_cannot_be_used_any_more(house: House) -> None:
    visitor = await house.visitor()
    refused = False

    async def check(url: str) -> None:
        if refused:
            raise UrlRefused("must name a host that has an address: it could not be resolved")

    object.__setattr__(house.service.runtime, "egress", SimpleNamespace(check=check))
    asked = {**BFL_JOB, "webhook_url": "https://consumer.example/hook"}
    first = await visitor.post("/v1/jobs", json=asked, headers={"Idempotency-Key": "k"})
    refused = True
    again = await visitor.post("/v1/jobs", json=asked, headers={"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    other = await visitor.post("/v1/jobs", json=asked, headers={"Idempotency-Key": "other"})
    assert paths_of(problem(other, 422, "invalid_input")) == ["webhook_url"]
    assert (await house.rows())["job"] == 1


async def test_large_integers_come_back_digit_for_digit(house: House) -> None:
    visitor = await house.visitor()
    sent = '{"provider":"bfl","model":"some-model","input":{"seed":%d,"more":[%d,-%d,1.5,1e2]}}'
    for headers in ({}, {"Idempotency-Key": "big"}):
        posted = await visitor.post(
            "/v1/jobs",
            content=sent % (BIG, BIGGER, BIGGER),
            headers={"Content-Type": "application/json", **headers},
        )
        assert posted.status_code == 202
        assert exact(posted.text)["input"] == {"seed": BIG, "more": [BIGGER, -BIGGER, 1.5, 100.0]}
        got = await visitor.get(posted.headers["location"])
        assert exact(got.text) == exact(posted.text)


async def test_raw_results_and_quoted_errors_keep_their_large_integers(house: House) -> None:
    visitor = await house.visitor()
    good, bad = await submit(visitor), await submit(visitor)
    await house.succeeded(good)
    await house.failed(bad, provider_error={"detail": [{"input": BIGGER}]})
    shown = exact((await visitor.get(f"/v1/jobs/{good}")).text)
    assert shown["output"]["raw"] == {"seed": BIG, "more": BIGGER}
    assert shown["output"]["seed"] == str(BIG)
    shown = exact((await visitor.get(f"/v1/jobs/{bad}")).text)
    assert shown["error"]["provider_error"] == {"detail": [{"input": BIGGER}]}
    assert shown["input"] == BFL_JOB["input"]
    assert exact((await visitor.get("/v1/jobs")).text)["data"][0] == shown


OTHER_TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=latin-1",
    "text/json",
    "",
]


async def test_a_body_that_is_not_announced_as_json_is_refused(house: House) -> None:
    visitor = await house.visitor()
    for content_type in OTHER_TYPES:
        response = await visitor.post("/v1/jobs", content=body(), headers={"Content-Type": content_type})
        problem(response, 415, "unsupported_media_type")
    assert (await house.rows())["job"] == 0


async def test_a_body_without_a_type_or_compressed_is_refused(house: House) -> None:
    visitor = await house.visitor()
    problem(await visitor.post("/v1/jobs", content=body()), 415, "unsupported_media_type")
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(await visitor.post("/v1/jobs", content=b"x", headers=packed), 415, "unsupported_media_type")


async def test_json_may_be_announced_in_every_usual_spelling(house: House) -> None:
    visitor = await house.visitor()
    for content_type in (
        "application/json;charset=UTF-8",
        'Application/JSON ; charset="utf-8"',
        "application/json",
    ):
        response = await visitor.post("/v1/jobs", content=body(), headers={"Content-Type": content_type})
        assert response.status_code == 202


async def test_an_input_may_have_one_mebibyte_and_not_a_byte_more(house: House) -> None:
    visitor = await house.visitor()
    room = 1024 * 1024 - len('{"text":""}')
    fits = {"provider": "bfl", "model": "some-model", "input": {"text": "x" * room}}
    assert (await visitor.post("/v1/jobs", json=fits)).status_code == 202
    rows = await house.rows()
    wider = {**fits, "input": {"text": "x" * (room - 1) + "é"}}
    problem(await visitor.post("/v1/jobs", json=wider), 413, "too_large")
    longer = {**fits, "input": {"text": "x" * (room + 1)}}
    problem(await visitor.post("/v1/jobs", json=longer), 413, "too_large")
    assert await house.rows() == rows


async def test_a_body_is_cut_off_while_it_is_read_whatever_its_length_claims(house: House) -> None:
    visitor = await house.visitor()
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        while taken < 100:
            taken += 1
            yield b" " * 64 * 1024

    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    problem(await visitor.post("/v1/jobs", content=endless(), headers=headers), 413, "too_large")
    assert taken < 30


async def test_an_idempotency_key_must_be_printable_ascii(house: House) -> None:
    visitor = await house.visitor()
    for key in (b"", b"k" * 256, b"tab\there", "ümlaut".encode(), b"\xff", b"nul\0"):
        response = await visitor.post("/v1/jobs", json=BFL_JOB, headers=[(b"Idempotency-Key", key)])
        assert paths_of(problem(response, 422, "invalid_input")) == ["Idempotency-Key"]
    assert (await house.rows())["job"] == 0


async def test_two_idempotency_keys_are_refused(house: House) -> None:
    visitor = await house.visitor()
    both = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await visitor.post("/v1/jobs", json=BFL_JOB, headers=both)
    assert paths_of(problem(response, 422, "invalid_input")) == ["Idempotency-Key"]


async def test_the_same_key_and_body_give_the_first_job_as_it_is_now(house: House) -> None:
    visitor = await house.visitor()
    key = {"Idempotency-Key": "order 7"}
    first = await visitor.post("/v1/jobs", json={**BFL_JOB, "deadline_s": 60}, headers=key)
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers
    await house.succeeded(first.json()["id"])
    # Equal JSON, other text.
    spelled = b' {"deadline_s":6e1, "input":{"prompt":"a f\\u006fx"},"model":"flux-2-pro","provider":"bfl"}'
    again = await visitor.post(
        "/v1/jobs",
        content=spelled.replace(b"6e1", b"60"),
        headers={**key, "Content-Type": "application/json"},
    )
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json() == (await visitor.get(f"/v1/jobs/{first.json()['id']}")).json()
    assert again.json()["state"] == "succeeded"
    assert (await house.rows())["job"] == 1


async def test_the_same_key_with_another_body_is_a_mismatch(house: House) -> None:
    visitor = await house.visitor()
    key = {"Idempotency-Key": "k"}
    await visitor.post("/v1/jobs", json=BFL_JOB, headers=key)
    other = {**BFL_JOB, "input": {"prompt": "a hen"}}
    problem(await visitor.post("/v1/jobs", json=other, headers=key), 409, "idempotency_mismatch")
    assert (await house.rows())["job"] == 1


async def test_a_key_belongs_to_its_tenant(house: House) -> None:
    ours, theirs = await house.visitor(), await house.visitor(tenant="other")
    key = {"Idempotency-Key": "k"}
    first = await ours.post("/v1/jobs", json=BFL_JOB, headers=key)
    second = await theirs.post("/v1/jobs", json=BFL_JOB, headers=key)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] != second.json()["id"]


async def test_of_twenty_concurrent_requests_with_one_key_one_makes_the_job(house: House) -> None:
    visitor = await house.visitor()

    async def once() -> httpx.Response:
        return await visitor.post("/v1/jobs", json=BFL_JOB, headers={"Idempotency-Key": "k"})

    answers = await asyncio.gather(*(once() for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    rows = await house.rows()
    assert (rows["job"], rows["history"], rows["event"], rows["work"]) == (1, 1, 1, 1)


async def test_of_equal_keys_in_an_object_the_last_counts(house: House) -> None:
    visitor = await house.visitor()
    twice = b'{"provider":"fal","provider":"bfl","model":"flux-2-pro","input":{"prompt":"x"}}'
    response = await visitor.post("/v1/jobs", content=twice, headers={"Content-Type": "application/json"})
    assert response.json()["provider"] == "bfl"


async def test_a_request_that_breaks_off_leaves_nothing(house: House) -> None:
    visitor = await house.visitor()
    messages = iter(
        [{"type": "http.request", "body": body(), "more_body": True}, {"type": "http.disconnect"}]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    key = visitor.headers["authorization"].encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"authorization", key)],
    }
    await house.app(scope, receive, send)
    assert sent == []
    assert (await house.rows())["job"] == 0
