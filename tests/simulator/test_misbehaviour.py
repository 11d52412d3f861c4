"""Every dial that touches submits and deliveries does what it says, and the totals add up."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests.simulator.harness import FAL, Scene, scene

pytestmark = pytest.mark.anyio


async def submit_many(at: Scene, number: int) -> list[Any]:
    """Submit to both providers in turn; what fails is kept as the name of its error or its status."""
    seen: list[Any] = []
    for token in range(number):
        submit = at.fal if token % 2 else at.bfl
        try:
            seen.append((await submit(hook=str(token))).status_code)
        except httpx.TransportError as error:
            seen.append(type(error).__name__)
    return seen


async def test_a_dropped_callback_never_comes_but_the_request_ends() -> None:
    async with scene("drop=1") as at:
        await submit_many(at, 6)
        await at.quiet()
        assert at.receiver.callbacks == []
        assert at.simulator.stats()["totals"]["callbacks"]["dropped"] == 6  # type: ignore[index]
        assert at.stat("fal", "requests", "ended") == at.stat("bfl", "requests", "ended") == 3


async def test_a_duplicated_callback_comes_two_or_three_times_with_one_body() -> None:
    async with scene("duplicate=1,bfl_auth=hmac") as at:
        await submit_many(at, 10)
        await at.quiet()
        by_token: dict[str, list[bytes]] = {}
        for callback in at.receiver.callbacks:
            by_token.setdefault(callback.token, []).append(callback.raw)
        assert {len(bodies) for bodies in by_token.values()} == {2, 3}
        assert all(len(set(bodies)) == 1 for bodies in by_token.values())
        totals: Any = at.simulator.stats()["totals"]
        assert totals["callbacks"]["duplicated"] == len(at.receiver.callbacks) - 10


async def test_late_and_delayed_callbacks_wait_after_the_end() -> None:
    async with scene("late=1,late_ms=250,delay_ms=100") as at:
        began = time.monotonic()
        await at.fal()
        await at.until(lambda: len(at.receiver.callbacks) == 1)
        assert time.monotonic() - began >= 0.34
        assert at.stat("fal", "callbacks", "late") == 1


async def test_reordered_callbacks_are_overtaken_or_overtake_their_own_submit() -> None:
    async with scene("reorder=1,run_ms=300") as at:
        early = held = 0
        for token in range(12):
            await at.fal(hook=str(token))
            plan = at.simulator.requests()[token]["plan"]
            came = any(callback.token == str(token) for callback in at.receiver.callbacks)
            assert came == plan["early"]  # type: ignore[index]
            early, held = early + plan["early"], held + plan["held"]  # type: ignore[index]
        await at.quiet()
        assert (early + held, early > 0, held > 0) == (12, True, True)
        assert len(at.receiver.callbacks) == 12
        assert (at.stat("fal", "callbacks", "early"), at.stat("fal", "callbacks", "held")) == (early, held)


async def test_a_held_callback_comes_after_that_of_a_later_request() -> None:
    async with scene("reorder=1,run_ms=10,reorder_ms=60000", seed=1) as at:
        tokens = []
        for token in range(12):
            await at.fal(hook=str(token))
            if at.simulator.requests()[-1]["plan"]["held"]:  # type: ignore[index]
                tokens.append(str(token))
                break
        await at.until(lambda: at.stat("fal", "callbacks", "held") == 1)
        at.simulator.set_faults(reorder=0)
        await at.fal(hook="later")
        await at.quiet()
        order = [callback.token for callback in at.receiver.callbacks]
        assert order.index("later") < order.index(tokens[0])


async def test_an_unanswered_submit_was_taken_and_hangs_or_is_cut() -> None:
    async with scene("submit_timeout=1,hang_ms=60000") as at:
        at.http.timeout = httpx.Timeout(0.3)
        seen = await submit_many(at, 12)
        await at.quiet()
        assert {"ReadTimeout"} < set(seen) <= {"ReadTimeout", "ReadError", "RemoteProtocolError"}
        totals: Any = at.simulator.stats()["totals"]
        assert totals["requests"]["accepted"] == 12
        assert sum(totals["requests"]["submit_fates"].values()) == 12
        assert set(totals["requests"]["submit_fates"]) == {"submit_hanging", "submit_cut"}
        assert len({callback.token for callback in at.receiver.callbacks}) == 12


async def test_a_hanging_submit_is_cut_after_its_time_and_does_not_hinder_the_stop() -> None:
    async with scene("submit_timeout=1,hang_ms=200") as at:
        seen = await submit_many(at, 8)
        assert set(seen) <= {"ReadError", "RemoteProtocolError"}
        at.simulator.set_faults(hang_ms=60_000)
        pending = [asyncio.ensure_future(at.fal(hook=None)) for _ in range(8)]
        await at.until(lambda: at.stat("fal", "requests", "accepted") == 12)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert all(isinstance(end, Exception) for end in await asyncio.gather(*pending, return_exceptions=True))


async def test_a_500_on_submit_was_taken_or_not() -> None:
    async with scene("submit_500=1") as at:
        assert await submit_many(at, 16) == [500] * 16
        totals: Any = at.simulator.stats()["totals"]["requests"]  # type: ignore[index]
        assert totals["accepted"] + totals["refused"] == 16
        assert totals["accepted"] == totals["submit_fates"]["submit_500_taken"] > 0
        assert totals["refused_by"] == {"submit_500": totals["refused"]}


@pytest.mark.parametrize(("dial", "fal", "bfl"), [("rate_limit", 429, 429), ("locked", 403, 402)])
async def test_a_refused_submit_was_not_taken(dial: str, fal: int, bfl: int) -> None:
    async with scene(f"{dial}=1") as at:
        assert await submit_many(at, 4) == [bfl, fal] * 2
        totals: Any = at.simulator.stats()["totals"]["requests"]  # type: ignore[index]
        assert (totals["accepted"], totals["refused_by"]) == (0, {dial: 4})
        at.simulator.set_faults(locked=0, rate_limit=1)
        assert (await at.fal()).headers["retry-after"] == "1"


async def test_polls_may_fail_and_are_counted_all_the_same() -> None:
    async with scene("poll_500=1") as at:
        reply = (await at.fal(hook=None)).json()
        await at.quiet()
        assert (await at.http.get(reply["status_url"], headers=FAL)).status_code == 500
        at.simulator.set_faults(poll_500=0)
        assert (await at.http.get(reply["status_url"], headers=FAL)).status_code == 200
        assert (await at.http.get(reply["response_url"], headers=FAL)).status_code == 200
        assert at.stat("fal", "polls", "answered") == 3
        row = at.simulator.requests("fal")[0]
        assert (row["polls"], row["results_fetched"], row["state"]) == (3, 1, "ended")


async def test_the_stats_add_up_and_equal_the_rows() -> None:
    dials = (
        "drop=0.2,duplicate=0.2,reorder=0.2,forge=0.3,late=0.2,late_ms=50,submit_500=0.1,rate_limit=0.1,moderate=0.1,"
        "fail=0.1,null_payload=0.1,bfl_active_limit=1000"
    )
    async with scene(dials, seed=3) as at:
        await submit_many(at, 80)
        await at.quiet()
        stats = (await at.http.get("/_sim/stats")).json()
        rows = (await at.http.get("/_sim/requests")).json()["data"]
        requests, callbacks = stats["totals"]["requests"], stats["totals"]["callbacks"]
        assert requests["accepted"] + requests["refused"] == 80
        assert requests["accepted"] == requests["ended"] == len(rows)
        genuine = [a for row in rows for a in row["answers"] if a["kind"] == "genuine"]
        forged = [a for row in rows for a in row["answers"] if a["kind"].startswith("forged")]
        assert callbacks["sent"] == callbacks["delivered"] == len(genuine) == callbacks["answers"]["200"]
        assert callbacks["sent"] == requests["accepted"] - callbacks["dropped"] + callbacks["duplicated"]
        assert callbacks["forged"] == len(forged) == callbacks["forged_answers"]["200"]
        assert callbacks["dropped"] == sum(row["plan"]["drop"] for row in rows)
        assert len(at.receiver.callbacks) == len(genuine) + len(forged) + callbacks["progress"]
        for group, name in (("requests", "accepted"), ("callbacks", "sent"), ("callbacks", "forged")):
            assert stats["totals"][group][name] == sum(p[group][name] for p in stats["providers"].values())


async def test_a_run_can_be_repeated_by_its_seed_whatever_the_order_of_arrival() -> None:
    async def plans(seed: int, *, together: bool) -> list[Any]:
        async with scene("drop=0.3,fail=0.3,forge=0.3,submit_500=0.2", seed=seed) as at:
            submits = [at.fal(hook=None) for _ in range(24)]
            if together:
                await asyncio.gather(*submits)
            else:
                for submit in submits:
                    await submit
            return sorted((row["plan"] for row in at.simulator.requests()), key=lambda plan: plan["number"])  # type: ignore[index]

    first = await plans(5, together=True)
    assert first == await plans(5, together=False)
    assert first != await plans(6, together=False)


async def test_a_receiver_that_cannot_be_reached_is_tried_again_and_given_up() -> None:
    async with scene("bfl_auth=secret,retry_scale=0.001") as at:
        submit = {"prompt": "x", "webhook_url": "http://127.0.0.1:9/x"}
        await at.http.post("/bfl/v1/flux-2-pro", json=submit, headers={"x-key": "k"})
        await at.quiet()
        assert at.stat("bfl", "callbacks", "answers") == {"refused": 4}


async def test_old_requests_are_forgotten_and_their_totals_kept() -> None:
    async with scene(keep_ended=5) as at:
        replies = []
        for _ in range(12):
            replies.append((await at.fal(hook=None)).json())
            await at.quiet()
        assert len(at.simulator.requests()) <= 7
        assert (await at.http.get(replies[0]["status_url"], headers=FAL)).status_code == 404
        assert at.stat("fal", "requests", "ended") == 12
        assert at.simulator.stats()["forgotten"] >= 5
