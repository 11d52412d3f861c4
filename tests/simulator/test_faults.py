"""The dials: what they accept, what they refuse by name, and that fate hangs on seed and number alone."""

import pytest

from service.simulator.faults import DIALS, FaultError, Faults, parse, update
from service.simulator.plan import Outcome, SubmitFate, make_plan
from tests.simulator.harness import scene

CONTRACT = (
    "drop=0.1,duplicate=0.1,delay_ms=500,reorder=0.1,forge=0.05,late=0.05,submit_timeout=0.02,submit_500=0.02,"
    "rate_limit=0.05,moderate=0.05,fail=0.05,null_payload=0.01,expire_url=0.05"
)


def test_the_dials_of_the_contract_are_read() -> None:
    faults = parse(CONTRACT)
    assert (faults.drop, faults.delay_ms, faults.null_payload) == (0.1, 500, 0.01)
    assert {part.split("=")[0] for part in CONTRACT.split(",")} <= set(DIALS)
    assert parse("") == Faults()
    assert parse(" drop = 1 , late=0 ") == Faults(drop=1.0)


@pytest.mark.parametrize(
    ("spec", "dial"),
    [
        ("dorp=0.1", "dorp"),
        ("drop", "drop"),
        ("drop=", "drop"),
        ("drop=often", "drop"),
        ("drop=1.1", "drop"),
        ("drop=-0.1", "drop"),
        ("drop=nan", "drop"),
        ("late=0.1,late=0.2", "late"),
        ("delay_ms=1.5", "delay_ms"),
        ("delay_ms=-1", "delay_ms"),
        ("run_ms=99999999999", "run_ms"),
        ("bfl_auth=magic", "bfl_auth"),
        ("retry_scale=1e9", "retry_scale"),
    ],
)
def test_a_malformed_dial_is_refused_by_its_name(spec: str, dial: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse(spec)
    assert caught.value.dial == dial
    assert str(caught.value).startswith(f"{dial}: ")


@pytest.mark.parametrize("value", [True, [0.1], {"p": 1}, None])
def test_a_dial_takes_no_other_json_than_a_number(value: object) -> None:
    with pytest.raises(FaultError, match="drop: must be a number"):
        update(Faults(), {"drop": value})


def test_the_same_seed_and_number_give_the_same_plan() -> None:
    faults = parse(CONTRACT)
    plans = [make_plan(faults, seed=7, provider="fal", number=number) for number in range(200)]
    assert plans == [make_plan(faults, seed=7, provider="fal", number=number) for number in range(200)]
    assert plans != [make_plan(faults, seed=8, provider="fal", number=number) for number in range(200)]


def test_turning_one_dial_changes_no_other_decision() -> None:
    calm = [make_plan(parse("drop=0.3"), seed=1, provider="bfl", number=number) for number in range(200)]
    wild = [
        make_plan(parse("drop=0.3,forge=0.5,fail=1"), seed=1, provider="bfl", number=n) for n in range(200)
    ]
    assert [plan.drop for plan in calm] == [plan.drop for plan in wild]
    assert 30 < sum(plan.drop for plan in calm) < 90
    assert [plan.run_ms for plan in calm] == [plan.run_ms for plan in wild]


def test_a_probability_of_one_always_strikes_and_of_zero_never() -> None:
    always = [make_plan(parse("fail=1,drop=1,forge=1"), seed=1, provider="fal", number=n) for n in range(50)]
    assert all(plan.outcome is Outcome.FAILED and plan.drop and plan.forge for plan in always)
    never = [make_plan(Faults(), seed=1, provider="fal", number=n) for n in range(50)]
    assert all(
        plan.outcome is Outcome.SUCCEEDED and plan.submit is SubmitFate.ANSWERED and plan.copies == 1
        and not (plan.drop or plan.forge or plan.late or plan.held or plan.early or plan.expire_url)
        for plan in never
    )  # fmt: skip


def test_both_sub_kinds_of_each_submit_fault_occur() -> None:
    def fates(dials: str) -> set[SubmitFate]:
        return {make_plan(parse(dials), seed=1, provider="fal", number=n).submit for n in range(50)}

    assert fates("submit_timeout=1") == {SubmitFate.HANGING, SubmitFate.CUT}
    assert fates("submit_500=1") == {SubmitFate.ERROR, SubmitFate.TAKEN_ERROR}


@pytest.mark.anyio
async def test_the_dials_are_read_and_turned_over_http() -> None:
    async with scene() as at:
        before = (await at.http.get("/_sim/faults")).json()
        reply = await at.http.put("/_sim/faults", json={"drop": 0.5, "run_ms": None})
        assert (reply.status_code, reply.json()) == (200, {**before, "drop": 0.5, "run_ms": None})
        refused = await at.http.put("/_sim/faults", json={"drop": 0.9, "dorp": 1})
        assert (refused.status_code, refused.json()["dial"]) == (422, "dorp")
        for bad in (b"{", b"[]", b"[" * 100_000):
            assert (await at.http.put("/_sim/faults", content=bad)).status_code == 400
        assert (await at.http.get("/_sim/faults")).json()["drop"] == 0.5
