"""One suite over all providers: what each must do, and what none may ever do. Each brings its harness."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import exact_json
from service.domain.callback import Judgement, Received, Verdict
from service.domain.facts import Fact, ProviderSucceeded, SubmitAccepted
from service.providers import registry
from service.providers.base import (
    Answer,
    KeysNeeded,
    MaybeTaken,
    NoNews,
    NotTaken,
    Refusal,
    Reply,
    Search,
    Stage,
    Trouble,
)
from service.providers.registry import BflSettings, FalSettings, ProviderSettings
from tests.providers.harness import (
    ATTEMPT_ID,
    CALLBACK_URL,
    NOW_MS,
    REQUEST_ID,
    SECRET,
    Harness,
    addressee,
    carries,
    drive,
    is_own,
    order,
    reply,
    subject,
)
from tests.providers.harness_bfl import BFL
from tests.providers.harness_fal import FAL

HARNESSES = [BFL, FAL]
pytestmark = pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)

FOREIGN = [
    "https://attacker.example",
    "http://127.0.0.1:9090",
    "https://{own}.attacker.example",
    "https://evil{own}",
    "http://api.{own}",
    "https://api.{own}:8443",
    "https://api.{own}@attacker.example",
    "https://attacker.example\\@api.{own}",
    "https://attacker.example#.{own}",
    "https://attacker.example?.{own}",
    "//attacker.example",
    "https://api.{own}%00.attacker.example",
    "https://[::1]",
    "javascript:alert(1)",
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def nested(levels: int) -> Any:
    """Make a list in a list in a list …"""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


JUNK = JSON | st.just("https://attacker.example/a") | st.sampled_from([90, 300, 900]).map(nested)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "content-type", "x-fal-error-type", "x-fal-billable-units", "x-other"]),
    st.text(max_size=30),
    max_size=3,
)


@st.composite
def varied(draw: st.DrawFn, documents: list[Any]) -> Any:
    """Take one of the provider's documents and put junk into some of its places."""
    document = json.loads(json.dumps(draw(st.sampled_from(documents))))
    for _ in range(draw(st.integers(0, 3))):
        place = document
        while isinstance(place, dict | list) and place:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            name = draw(st.sampled_from(names))
            if not isinstance(place[name], dict | list) or not place[name] or draw(st.booleans()):
                place[name] = draw(JUNK)
                break
            place = place[name]
    return document


def bodies(harness: Harness) -> st.SearchStrategy[bytes]:
    ours = varied(harness.documents).map(lambda value: json.dumps(value).encode())
    deep = st.integers(1, 2_000).map(lambda n: b'{"result":' + b"[" * n + b"]" * n + b"}")
    return ours | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60) | deep


def replies(harness: Harness) -> st.SearchStrategy[Answer]:
    usual = st.sampled_from(
        [200, 200, 200, 201, 202, 400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504]
    )
    whole = st.builds(Reply, status=usual | st.integers(100, 599), headers=HEADERS, body=bodies(harness))
    return whole | st.builds(Trouble, stage=st.sampled_from(Stage), reason=st.just("lost"))


def check_facts(facts: tuple[Fact, ...], cause: str) -> None:
    """Whatever was answered: facts name the attempt, can be written down, and no success is without a file."""
    for fact in facts:
        assert (fact.cause, fact.attempt_id) == (cause, ATTEMPT_ID)
        if isinstance(fact, SubmitAccepted):
            assert fact.provider_request_id.isprintable()
            assert 0 < len(fact.provider_request_id) <= 200
        if isinstance(fact, ProviderSucceeded):
            assert fact.output.images
            assert all(image.url.startswith(("https://", "http://", "data:")) for image in fact.output.images)
            exact_json.dumps(fact.output.raw)
        error = getattr(fact, "error", None)
        if error is not None:
            assert error.message
            exact_json.dumps(error.provider_error)
        cost = getattr(fact, "cost_usd", None)
        assert cost is None or (isinstance(cost, Decimal) and cost.is_finite() and cost >= 0)


class TestKeys:
    @pytest.mark.parametrize("base", FOREIGN)
    def test_the_key_goes_to_no_host_that_a_reply_names(self, harness: Harness, base: str) -> None:
        base = base.replace("{own}", harness.own_domains[0])
        provider = harness.make()
        _, taken = drive(provider.submit(order(harness)), [harness.taken(base)])
        assert isinstance(taken, tuple)
        (accepted,) = taken
        assert isinstance(accepted, SubmitAccepted)
        assert all(is_own(harness, url) for url in accepted.links.values())
        # A link that was kept by an older configuration is checked once more where it is used.
        asked = subject(harness, dict.fromkeys(harness.link_names, f"{base}/x"))
        answers: list[Answer] = [harness.taken(base), *harness.endings["succeeded"].polled]
        calls = drive(provider.ask(asked), answers)[0] + drive(provider.cancel(asked), answers)[0]
        assert calls
        assert all(is_own(harness, call.url) for call in calls if carries(harness, call))

    def test_the_own_hosts_that_a_reply_names_are_used(self, harness: Harness) -> None:
        provider = harness.make()
        base = f"https://other-cluster.{harness.own_domains[0]}"
        _, taken = drive(provider.submit(order(harness)), [harness.taken(base)])
        assert isinstance(taken, tuple)
        assert isinstance(taken[0], SubmitAccepted)
        links = dict(taken[0].links)
        assert set(links) == set(harness.link_names)
        calls, _ = drive(provider.ask(subject(harness, links)), [reply(503, {})])
        assert [call.url for call in calls] == [links["status"]]
        assert links["status"].startswith(base)
        assert all(carries(harness, call) for call in calls)

    def test_keys_and_secrets_are_in_no_url_no_repr_and_no_error(self, harness: Harness) -> None:
        provider = harness.make()
        calls, _ = drive(provider.submit(order(harness)), [reply(500, {})])
        echo = {
            "detail": [
                {"type": "x", "loc": ["body"], "msg": str(dict(calls[0].headers)), "input": str(calls[0])}
            ]
        }
        _, refused = drive(provider.submit(order(harness)), [reply(422, echo)])
        assert harness.key not in calls[0].url
        assert harness.key not in repr(provider)
        assert harness.key not in repr(refused)
        assert SECRET not in repr(refused)
        assert CALLBACK_URL.rpartition("/")[2] not in repr(refused)


class TestSubmit:
    def test_it_makes_one_call_with_a_time_limit(self, harness: Harness) -> None:
        calls, _ = drive(harness.make().submit(order(harness)), [harness.taken("https://x")])
        assert len(calls) == 1
        assert (calls[0].method, 0 < calls[0].timeout_s <= 30) == ("POST", True)

    def test_without_a_callback_url_no_webhook_is_named(self, harness: Harness) -> None:
        (call,), _ = drive(harness.make().submit(order(harness, callback_url=None)), [reply(500, {})])
        assert "webhook" not in f"{call.url} {call.headers} {call.body!r}".lower()
        assert SECRET not in repr(call)

    def test_large_integers_leave_exactly(self, harness: Harness) -> None:
        given = {**harness.input, "seed": 158603074658846355129999}
        (call,), _ = drive(harness.make().submit(order(harness, input=given)), [reply(500, {})])
        assert b"158603074658846355129999" in (call.body or b"")

    def test_what_was_taken_is_told_with_its_id(self, harness: Harness) -> None:
        _, taken = drive(harness.make().submit(order(harness)), [harness.taken("https://x")])
        assert isinstance(taken, tuple)
        check_facts(taken, "submit")
        assert isinstance(taken[0], SubmitAccepted)
        assert taken[0].provider_request_id == REQUEST_ID

    @pytest.mark.parametrize("status", [*range(500, 512), 520, 599, 408, 300, 302, 307, 308])
    def test_an_answer_that_proves_nothing_may_have_been_taken(self, harness: Harness, status: int) -> None:
        for body in (b"", b"<html>", b'{"detail":"x"}', harness.taken("https://x").body):
            _, result = drive(
                harness.make().submit(order(harness)), [Reply(status=status, headers={}, body=body)]
            )
            assert isinstance(result, MaybeTaken)

    @pytest.mark.parametrize("body", [b"", b"{}", b"null", b"<html>", b'{"status":"IN_QUEUE"}'])
    def test_a_success_without_an_id_may_have_been_taken(self, harness: Harness, body: bytes) -> None:
        _, result = drive(harness.make().submit(order(harness)), [Reply(status=200, headers={}, body=body)])
        assert isinstance(result, MaybeTaken)

    def test_what_did_not_leave_was_not_taken(self, harness: Harness) -> None:
        _, result = drive(
            harness.make().submit(order(harness)), [Trouble(stage=Stage.NOT_SENT, reason="refused")]
        )
        assert isinstance(result, NotTaken)
        assert (result.refusal, result.message) == (Refusal.UNREACHABLE, "refused")

    def test_what_may_have_left_may_have_been_taken(self, harness: Harness) -> None:
        _, result = drive(
            harness.make().submit(order(harness)), [Trouble(stage=Stage.MAYBE_SENT, reason="reset")]
        )
        assert isinstance(result, MaybeTaken)

    @pytest.mark.parametrize(
        ("status", "refusal"),
        [
            (401, Refusal.AUTHENTICATION),
            (402, Refusal.INSUFFICIENT_CREDIT),
            (403, Refusal.AUTHENTICATION),
            (429, Refusal.RATE_LIMITED),
        ],
    )
    def test_trouble_of_the_account_parks_the_job(
        self, harness: Harness, status: int, refusal: Refusal
    ) -> None:
        _, result = drive(
            harness.make().submit(order(harness)), [reply(status, {"detail": "no"}, retry_after="3")]
        )
        assert isinstance(result, NotTaken)
        assert (result.refusal, result.retry_after_ms) == (refusal, 3_000)

    @given(data=st.data())
    def test_no_answer_makes_it_raise_or_succeed(self, harness: Harness, data: st.DataObject) -> None:
        answer = data.draw(replies(harness))
        _, result = drive(harness.make().submit(order(harness)), [answer])
        if isinstance(result, tuple):
            assert result
            check_facts(result, "submit")
            assert not any(isinstance(fact, ProviderSucceeded) for fact in result)
            assert isinstance(answer, Reply)
            assert answer.status < 500


class TestAsk:
    @pytest.mark.parametrize(
        "word", ["DONE", "Ready!", "completed ok", "", "null", None, 7, True, {}, ["Ready"]]
    )
    def test_an_unknown_word_is_neither_success_nor_an_end(self, harness: Harness, word: Any) -> None:
        _, result = drive(harness.make().ask(subject(harness)), [harness.status(word)])
        assert isinstance(result, NoNews)
        assert result.facts == ()

    def test_a_word_on_the_way_is_no_end(self, harness: Harness) -> None:
        for word in harness.words_under_way:
            _, result = drive(harness.make().ask(subject(harness)), [harness.status(word)])
            assert isinstance(result, NoNews)
            check_facts(result.facts, "poll")

    @pytest.mark.parametrize("status", [302, 401, 402, 403, 404, 408, 429, 500, 502, 503, 504])
    def test_trouble_with_the_question_is_no_verdict(self, harness: Harness, status: int) -> None:
        _, result = drive(harness.make().ask(subject(harness)), [reply(status, {"detail": "no"})])
        assert isinstance(result, NoNews)

    @pytest.mark.parametrize("stage", list(Stage))
    def test_trouble_on_the_way_is_no_verdict(self, harness: Harness, stage: Stage) -> None:
        _, result = drive(harness.make().ask(subject(harness)), [Trouble(stage=stage, reason="lost")])
        assert isinstance(result, NoNews)

    def test_how_long_to_wait_is_passed_on(self, harness: Harness) -> None:
        _, result = drive(harness.make().ask(subject(harness)), [reply(429, {}, retry_after="9")])
        assert isinstance(result, NoNews)
        assert result.retry_after_ms == 9_000

    def test_it_asks_with_get_and_a_time_limit(self, harness: Harness) -> None:
        calls, _ = drive(harness.make().ask(subject(harness)), harness.endings["succeeded"].polled)
        assert all((call.method, call.body) == ("GET", None) for call in calls)
        assert all(0 < call.timeout_s <= 30 for call in calls)

    @given(data=st.data())
    def test_no_answers_make_it_raise_or_invent(self, harness: Harness, data: st.DataObject) -> None:
        answers = data.draw(st.lists(replies(harness), min_size=1, max_size=4))
        _, result = drive(harness.make().ask(subject(harness)), answers)
        check_facts(result.facts if isinstance(result, NoNews) else result, "poll")

    @pytest.mark.parametrize("levels", [90, 300, 900])
    def test_a_result_that_is_nested_deep_can_be_written_down_or_is_none(
        self, harness: Harness, levels: int
    ) -> None:
        polled = harness.endings["succeeded"].polled
        deep = b'{"x":' + b"[" * levels + b"]" * levels + b","
        ended = [replace(polled[-1], body=polled[-1].body.replace(b"{", deep, count)) for count in (1, 2, 3)]
        for last in ended:
            _, result = drive(harness.make().ask(subject(harness)), [*polled[:-1], last])
            check_facts(result.facts if isinstance(result, NoNews) else result, "poll")

    @given(data=st.data())
    def test_nothing_makes_a_cancel_or_a_search_raise(self, harness: Harness, data: st.DataObject) -> None:
        answers = data.draw(st.lists(replies(harness), min_size=1, max_size=4))
        drive(harness.make().cancel(subject(harness)), answers)
        search = Search(
            attempt_id=ATTEMPT_ID,
            model=harness.model,
            input=harness.input,
            from_ms=NOW_MS - 60_000,
            until_ms=NOW_MS,
        )
        talk = harness.make().find(search)
        if talk is not None:
            for listed in drive(talk, answers)[1]:
                assert listed.provider_request_id


def judged(harness: Harness, received: Received, request_id: str | None = REQUEST_ID) -> Judgement:
    judgement = harness.make().judge(received, addressee(harness, request_id))
    assert isinstance(judgement, Judgement)
    return judgement


def genuine(harness: Harness, ending: str = "succeeded") -> Received:
    return harness.proved(json.dumps(harness.endings[ending].called_back).encode())


class TestCallbacks:
    def test_a_genuine_one_says_what_a_poll_says(self, harness: Harness) -> None:
        for name, ending in harness.endings.items():
            judgement = judged(harness, genuine(harness, name))
            _, polled = drive(harness.make().ask(subject(harness)), ending.polled)
            assert isinstance(polled, tuple)
            check_facts(polled, "poll")
            assert judgement.verdict is Verdict.VERIFIED
            assert judgement.facts == tuple(replace(fact, cause="") for fact in polled)
            assert judgement.message_key

    def test_the_endings_are_told_apart_by_their_key(self, harness: Harness) -> None:
        keys = {
            judged(harness, genuine(harness, name)).message_key
            for name in ("succeeded", "refused", "failed")
            if name in harness.endings
        }
        assert len(keys) == 2

    def test_none_of_its_proofs_may_be_changed_or_missing(self, harness: Harness) -> None:
        received = genuine(harness)
        for name in received.headers:
            for value in ("", " ", "0", "é", received.headers[name][:-1], received.headers[name] + "0"):
                headers = {**received.headers, name: value}
                assert_not_believed(harness, replace(received, headers=headers))
            without = {other: value for other, value in received.headers.items() if other != name}
            assert_not_believed(harness, replace(received, headers=without))

    def test_a_genuine_one_of_another_request_moves_nothing(self, harness: Harness) -> None:
        judgement = judged(harness, genuine(harness), "another-request-id")
        assert (judgement.verdict, judgement.facts) == (Verdict.MISMATCHED, ())

    def test_a_genuine_one_may_come_before_the_answer_to_our_submit(self, harness: Harness) -> None:
        """Either it binds its id and is believed, or it names a candidate that is asked for; never neither."""
        judgement = judged(harness, genuine(harness), None)
        assert judgement.verdict is Verdict.VERIFIED
        if judgement.facts:
            bound = judgement.facts[0]
            assert isinstance(bound, SubmitAccepted)
            assert bound.provider_request_id == REQUEST_ID
        else:
            assert (judgement.candidate_request_id, judgement.ask) == (REQUEST_ID, True)

    @given(data=st.data())
    def test_without_a_proof_nothing_is_believed_and_nothing_raises(
        self, harness: Harness, data: st.DataObject
    ) -> None:
        names = st.sampled_from([*harness.proof_headers, "content-type", "authorization"])
        texts = st.text(max_size=40) | st.sampled_from(
            [REQUEST_ID, "user-1", str(NOW_MS // 1_000), "0" * 128]
        )
        headers = data.draw(st.dictionaries(names, texts, max_size=6))
        body = data.draw(bodies(harness) | st.just(genuine(harness).body))
        assert_not_believed(harness, Received(headers=headers, body=body, received_ms=NOW_MS))

    @given(data=st.data())
    def test_a_proved_body_of_any_kind_raises_nothing_and_invents_nothing(
        self, harness: Harness, data: st.DataObject
    ) -> None:
        request_id = data.draw(st.sampled_from([REQUEST_ID, None, "another"]))
        received = harness.proved(data.draw(bodies(harness)))
        judgement = judged(harness, received, request_id)
        check_facts(judgement.facts, "")
        if judgement.facts:
            assert judgement.verdict is Verdict.VERIFIED
        if judgement.message_key is None:
            assert all(isinstance(fact, SubmitAccepted) for fact in judgement.facts)


def assert_not_believed(harness: Harness, received: Received) -> None:
    for request_id in (REQUEST_ID, None):
        judgement = harness.make().judge(received, addressee(harness, request_id))
        if isinstance(judgement, KeysNeeded):
            continue
        assert judgement.verdict is not Verdict.VERIFIED
        assert judgement.facts == ()
        assert judgement.message_key is None
        assert judgement.candidate_request_id is None


class TestInputs:
    def test_a_good_input_passes_for_known_and_unknown_models(self, harness: Harness) -> None:
        for model in (*harness.known_models, f"{harness.model}-of-tomorrow"):
            assert harness.make().validate(model, {**harness.input, "unknown_field": [1]}) == []

    @pytest.mark.parametrize("name", ["webhook_url", "webhook_secret"])
    def test_our_own_fields_are_refused_everywhere(self, harness: Harness, name: str) -> None:
        for model in (*harness.known_models, f"{harness.model}-of-tomorrow"):
            found = harness.make().validate(model, {**harness.input, name: "https://mine.example"})
            assert [error.path for error in found] == [f"input.{name}"]

    @pytest.mark.parametrize(
        "model", ["", "/", "../x", "a//b", "a/../b", "a b/c", "a?b/c", "a#b/c", "a/b%2f", "é/b"]
    )
    def test_a_model_that_is_no_safe_path_is_refused(self, harness: Harness, model: str) -> None:
        assert [error.path for error in harness.make().validate(model, harness.input)] == ["model"]

    def test_an_estimate_is_exact_money(self, harness: Harness) -> None:
        for model in harness.known_models:
            estimate = harness.make().estimate_usd(model, harness.input)
            assert isinstance(estimate, Decimal)
            assert Decimal("0.001") <= estimate < 10

    @given(data=st.data())
    def test_no_input_makes_them_raise(self, harness: Harness, data: st.DataObject) -> None:
        fields = [
            "prompt",
            "seed",
            "width",
            "height",
            "image_size",
            "num_images",
            "input_image",
            "image_urls",
            "x",
        ]
        junk = st.dictionaries(st.sampled_from(fields), JSON | st.integers(-10, 10**6), max_size=5)
        given_input = {**harness.input, **data.draw(junk)}
        model = data.draw(st.sampled_from(harness.known_models) | st.text(max_size=20))
        provider = harness.make()
        for error in provider.validate(model, given_input):
            assert error.path == "model" or error.path.startswith("input.")
            assert error.message
        estimate = provider.estimate_usd(model, given_input)
        assert estimate is None or (isinstance(estimate, Decimal) and estimate.is_finite() and estimate >= 0)


class TestFiles:
    @pytest.mark.parametrize("base", FOREIGN)
    def test_nothing_is_fetched_from_elsewhere(self, harness: Harness, base: str) -> None:
        assert not harness.make().may_download(base.replace("{own}", harness.own_domains[0]) + "/a.png")

    def test_what_the_provider_delivers_is_fetched(self, harness: Harness) -> None:
        _, ended = drive(harness.make().ask(subject(harness)), harness.endings["succeeded"].polled)
        assert isinstance(ended, tuple)
        assert isinstance(ended[0], ProviderSucceeded)
        assert all(harness.make().may_download(image.url) for image in ended[0].output.images)


class TestRegistry:
    def test_a_provider_is_on_when_its_key_is_set(self, harness: Harness) -> None:
        both = ProviderSettings(fal=FalSettings(key="k"), bfl=BflSettings(key="k"))
        assert registry.build(ProviderSettings()) == {}
        assert registry.build(both)[harness.name].name == harness.name

    def test_every_built_provider_is_known_and_has_a_harness_here(self, harness: Harness) -> None:
        assert harness.name in registry.BUILT
        assert {one.name for one in HARNESSES} == set(registry.BUILT) <= set(registry.KNOWN)

    def test_keys_are_not_printed(self, harness: Harness) -> None:
        settings = ProviderSettings(fal=FalSettings(key=harness.key), bfl=BflSettings(key=harness.key))
        assert harness.key not in repr(settings)

    def test_no_question_waits_longer_than_results_live(self, harness: Harness) -> None:
        pace = harness.make().pace
        assert 0 < pace.interval_ms <= pace.interval_cap_ms <= 60_000
        assert 0 < pace.first_cap_ms <= 120_000
        assert pace.growth > 1
