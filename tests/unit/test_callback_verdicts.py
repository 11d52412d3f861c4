"""What the sender of a callback is told, and after what we ask ourselves."""

from service.domain.callback import ASK_AFTER, STATUS, Verdict


def test_every_verdict_has_the_status_of_the_contract() -> None:
    assert {verdict.value: status for verdict, status in STATUS.items()} == {
        "verified": 200,
        "duplicate": 200,
        "unauthenticated": 200,
        "forged": 401,
        "stale": 401,
        "mismatched": 401,
        "malformed": 400,
        "unjudged": 503,
    }
    assert set(STATUS) == set(Verdict)


def test_what_is_not_believed_is_asked_about() -> None:
    assert set(Verdict) - ASK_AFTER == {Verdict.VERIFIED, Verdict.DUPLICATE}
