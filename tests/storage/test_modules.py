"""Callbacks, keys, result files and lists of jobs: what is written is found again, by its owner alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from service.domain.effects import Work
from service.domain.ids import AttemptId
from service.domain.job import Attempt, Job
from service.domain.results import Output
from service.domain.states import AttemptState, JobState, LearnedBy
from service.storage import artifacts, callbacks, history, idempotency, jobs, keys, search, work
from service.storage.artifacts import Artifact
from service.storage.callbacks import Kept, Tally
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.idempotency import Claimed
from service.storage.jobs import Change, Stored
from service.storage.keys import ApiKey
from service.storage.search import Filters
from tests.storage.world import NOW, Clock, insert_jobs, new_job, only, walk


def attempt_of(number: int, **fields: Any) -> Attempt:
    return Attempt(
        **{
            "id": AttemptId(f"att_{number}"),
            "number": 1,
            "provider": "fal",
            "model": "m",
            "state": AttemptState.QUEUED,
            "secret_key_id": "k",
            "started_ms": NOW,
            **fields,
        }
    )


def with_attempts(driver: Driver, count: int, **fields: Any) -> None:
    """Make jobs with one attempt each, whose tokens hash to `token_0`, `token_1`, …"""

    def write(tx: Tx) -> None:
        for number in range(count):
            job = new_job(f"job_{number}", state=JobState.QUEUED)
            insert_jobs(tx, [job])
            made = attempt_of(number, **fields)
            after = Stored(replace(job, attempts=(made,)), 1, "", 0)
            jobs.save_many(tx, [Change(Stored(job, 0, "", 0), after)], {made.id: f"token_{number}"})

    only(driver, write)


class TestCallbacks:
    def kept(self, number: int, job_id: str = "job_0", **fields: Any) -> Kept:
        return Kept(
            **{
                "id": f"cb_{number}",
                "job_id": job_id,
                "attempt_id": "att_0",
                "received_ms": NOW,
                "verdict": "verified",
                "reason": "",
                "status": 200,
                "key_id": None,
                "body_sha256": "s",
                "headers": '{"x":"ключ"}',
                "body": b"{}",
                **fields,
            }
        )

    def test_are_found_by_the_hash_of_their_token(self, driver: Driver) -> None:
        with_attempts(driver, 3)
        found = only(
            driver, lambda tx: callbacks.addressees(tx, ["token_2", "token_0", "token_9", "token_2"])
        )
        assert {token: row["id"] for token, row in found.items()} == {"token_0": "att_0", "token_2": "att_2"}
        assert (found["token_0"]["refused_callbacks"], found["token_0"]["message_key"]) == (0, None)

    def test_are_kept_as_they_came_byte_by_byte(self, driver: Driver) -> None:
        with_attempts(driver, 2)
        bodies = [b"", b"\x00\xff\xfe\\x00'", bytes(range(256)) * 300, '{"a":"ключ 🦊"}'.encode()]
        made = [self.kept(number, body=body) for number, body in enumerate(bodies)]
        only(driver, lambda tx: callbacks.keep(tx, [*made, self.kept(7, "job_1")]))
        for kept in made:
            row = driver.read(
                lambda tx, kept=kept: callbacks.body_of(tx, job_id="job_0", callback_id=kept.id)
            )
            assert row == {"body": kept.body, "headers": kept.headers}
        assert driver.read(lambda tx: callbacks.body_of(tx, job_id="job_0", callback_id="cb_7")) is None

    def test_are_listed_page_by_page_without_their_bodies(self, driver: Driver) -> None:
        with_attempts(driver, 2)
        only(driver, lambda tx: callbacks.keep(tx, [self.kept(number) for number in range(9)]))
        only(driver, lambda tx: callbacks.keep(tx, [self.kept(9, "job_1")]))
        read = walk(
            driver,
            lambda tx, last: callbacks.of_job(tx, "job_0", after=last["id"] if last else "", most=4),
        )
        assert [row["id"] for row in read] == [f"cb_{number}" for number in range(9)]
        assert all("body" not in row for row in read)

    def test_are_counted_by_attempt(self, driver: Driver) -> None:
        with_attempts(driver, 2)
        tally = Tally(
            attempt_id="att_1",
            message_key="m",
            refused_callbacks=3,
            refused_bytes=9_000_000_000,
            hinted_ms=NOW,
        )
        only(driver, lambda tx: callbacks.tally(tx, [tally]))
        found = only(driver, lambda tx: callbacks.addressees(tx, ["token_0", "token_1"]))
        told = {
            name: found["token_1"][name] for name in ("message_key", "refused_callbacks", "refused_bytes")
        }
        assert told == {"message_key": "m", "refused_callbacks": 3, "refused_bytes": 9_000_000_000}
        assert found["token_0"]["refused_callbacks"] == 0

    def test_of_one_job_are_judged_one_after_the_other(self, database_url: str, clock: Clock) -> None:
        """Else two equal ones at the same time would both be the first, or a forged one would wipe out what a
        genuine one said.
        """
        drivers = [open_driver(database_url, clock) for _ in range(2)]
        with_attempts(drivers[0], 1)
        looked, go_on = threading.Event(), threading.Event()

        def judging(said: str, *, waits: bool) -> Any:
            def judge(tx: Tx) -> Any:
                row = callbacks.addressees(tx, ["token_0"])["token_0"]
                if waits:
                    looked.set()
                    assert go_on.wait(10)
                counted = row["refused_callbacks"] + 1
                callbacks.tally(
                    tx,
                    [
                        Tally(
                            attempt_id="att_0",
                            message_key=said,
                            refused_callbacks=counted,
                            refused_bytes=0,
                            hinted_ms=0,
                        )
                    ],
                )
                return row["message_key"]

            return judge

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(only, drivers[0], judging("first", waits=True))
            assert looked.wait(10)
            second = pool.submit(only, drivers[1], judging("second", waits=False))
            time.sleep(0.1)
            assert not second.done()
            go_on.set()
            assert (first.result(10), second.result(10)) == (None, "first")
        found = only(drivers[0], lambda tx: callbacks.addressees(tx, ["token_0"]))
        assert found["token_0"]["refused_callbacks"] == 2
        for driver in drivers:
            driver.close()

    def test_of_many_jobs_in_any_order_do_not_block_each_other(self, database_url: str, clock: Clock) -> None:
        drivers = [open_driver(database_url, clock) for _ in range(4)]
        with_attempts(drivers[0], 12)
        tokens = [f"token_{number}" for number in range(12)]
        together = threading.Barrier(4)

        def judge(number: int) -> int:
            runs = []

            def once(tx: Tx) -> None:
                runs.append(1)
                order = tokens if number % 2 else tokens[::-1]
                callbacks.addressees(tx, order)
                jobs.load(tx, [f"job_{place}" for place in range(12)], lock=True)

            for _ in range(10):
                together.wait(10)
                only(drivers[number], once)
            return len(runs)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(judge, range(4))) == [10] * 4, "no transaction had to be tried again"
        for driver in drivers:
            driver.close()

    def test_name_the_requests_they_claim(self, driver: Driver) -> None:
        with_attempts(driver, 3)
        only(driver, lambda tx: callbacks.name_candidates(tx, [("att_0", "req-a"), ("att_2", "req-c")]))
        found = driver.read(lambda tx: callbacks.candidates(tx, ["att_0", "att_1", "att_2", "att_9"]))
        assert found == {"att_0": "req-a", "att_2": "req-c"}


class TestKeys:
    def key(self, number: int, **fields: Any) -> ApiKey:
        return ApiKey(
            **{
                "id": f"key_{number}",
                "tenant": "default",
                "name": "ключ",
                "scopes": frozenset({"jobs:read", "jobs:write"}),
                "created_ms": NOW,
                **fields,
            }
        )

    def test_are_found_by_the_hash_of_their_secret(self, driver: Driver) -> None:
        made = [self.key(1), self.key(2, tenant="other", scopes=frozenset())]
        for place, key in enumerate(made):
            assert only(
                driver, lambda tx, key=key, place=place: keys.insert(tx, key, secret_hash=f"h{place}")
            )
        assert driver.read(lambda tx: keys.find(tx, "h0")) == made[0]
        assert driver.read(lambda tx: keys.find(tx, "h1")) == made[1]
        assert driver.read(lambda tx: keys.find(tx, "h2")) is None
        assert driver.read(keys.all_keys) == made

    def test_with_a_secret_in_use_are_not_made(self, driver: Driver) -> None:
        assert only(driver, lambda tx: keys.insert(tx, self.key(1), secret_hash="h"))
        assert not only(driver, lambda tx: keys.insert(tx, self.key(2), secret_hash="h"))
        assert driver.read(keys.all_keys) == [self.key(1)]

    def test_are_revoked_once_and_listed_ever_after(self, driver: Driver) -> None:
        only(driver, lambda tx: keys.insert(tx, self.key(1), secret_hash="h"))
        assert only(driver, lambda tx: keys.revoke(tx, "key_1", now_ms=NOW + 5))
        assert not only(driver, lambda tx: keys.revoke(tx, "key_1", now_ms=NOW + 9))
        assert not only(driver, lambda tx: keys.revoke(tx, "key_9", now_ms=NOW + 9))
        assert driver.read(lambda tx: keys.find(tx, "h")) is None
        assert driver.read(keys.all_keys) == [self.key(1, revoked_ms=NOW + 5)]


class TestArtifacts:
    def wanted(self, position: int, **fields: Any) -> Artifact:
        return Artifact(
            **{
                "id": f"art_{position}",
                "job_id": "job_1",
                "attempt_id": "att_1",
                "tenant": "default",
                "position": position,
                "state": "wanted",
                "source_url": f"https://files.example/{position}.png",
                "created_ms": NOW,
                **fields,
            }
        )

    def test_are_listed_in_the_order_of_the_output(self, driver: Driver) -> None:
        only(driver, lambda tx: insert_jobs(tx, [new_job()]))
        only(driver, lambda tx: artifacts.want(tx, [self.wanted(number) for number in (2, 0, 1)]))
        assert driver.read(lambda tx: artifacts.of_job(tx, "job_1")) == [
            self.wanted(number) for number in range(3)
        ]
        assert driver.read(lambda tx: artifacts.of_job(tx, "job_2")) == []

    def test_that_were_noted_before_stay_as_they_are(self, driver: Driver) -> None:
        only(driver, lambda tx: insert_jobs(tx, [new_job()]))
        only(driver, lambda tx: artifacts.want(tx, [self.wanted(0)]))
        kept = self.wanted(
            0, state="kept", sha256="ab", size_bytes=9_000_000_000, content_type="image/png", kept_ms=NOW + 9
        )
        only(driver, lambda tx: artifacts.save(tx, kept))
        only(driver, lambda tx: artifacts.want(tx, [self.wanted(0, id="art_again"), self.wanted(1)]))
        assert driver.read(lambda tx: artifacts.of_job(tx, "job_1")) == [kept, self.wanted(1)]

    def test_are_found_by_their_tenant_alone(self, driver: Driver) -> None:
        only(driver, lambda tx: insert_jobs(tx, [new_job()]))
        only(driver, lambda tx: artifacts.want(tx, [self.wanted(0)]))
        assert driver.read(
            lambda tx: artifacts.one(tx, tenant="default", artifact_id="art_0")
        ) == self.wanted(0)
        assert driver.read(lambda tx: artifacts.one(tx, tenant="other", artifact_id="art_0")) is None
        assert driver.read(lambda tx: artifacts.one(tx, tenant="default", artifact_id="art_1")) is None


class TestLists:
    def made(self) -> list[Job]:
        states = [JobState.ACCEPTED, JobState.QUEUED, JobState.SUCCEEDED]
        return [
            new_job(
                f"job_{number:03d}",
                state=states[number % 3],
                tenant="other" if number % 5 == 0 else "default",
                provider="fal" if number % 2 else "bfl",
                model=f"m{number % 4}",
                created_ms=NOW + number,
                metadata={"order": str(number % 7), "of": "ключ"} if number % 3 else {},
                completed_ms=NOW if number % 3 == 2 else None,
                output=Output(images=()) if number % 3 == 2 else None,
            )
            for number in range(60)
        ]

    @pytest.mark.parametrize(
        ("filters", "fits"),
        [
            ({}, lambda job: True),
            ({"states": ["queued"]}, lambda job: job.state == "queued"),
            ({"states": ["queued", "succeeded"]}, lambda job: job.state in ("queued", "succeeded")),
            ({"provider": "fal"}, lambda job: job.provider == "fal"),
            ({"model": "m3", "provider": "fal"}, lambda job: job.model == "m3"),
            (
                {"created_after_ms": NOW + 10, "created_before_ms": NOW + 30},
                lambda job: 10 < job.created_ms - NOW < 30,
            ),
            ({"metadata": {"order": "2"}}, lambda job: job.metadata.get("order") == "2"),
            ({"metadata": {"order": "2", "of": "ключ"}}, lambda job: job.metadata.get("order") == "2"),
            ({"metadata": {"order": "2", "of": "no"}}, lambda job: False),
            ({"metadata": {"nothing": "2"}}, lambda job: False),
            ({"tenant": "other"}, lambda job: True),
            ({"tenant": "other", "metadata": {"of": "ключ"}}, lambda job: bool(job.metadata)),
            ({"tenant": "nobody"}, lambda job: False),
        ],
    )
    def test_walk_everything_once_newest_first(self, driver: Driver, filters: Any, fits: Any) -> None:
        made = self.made()
        only(driver, lambda tx: insert_jobs(tx, made))
        wanted = Filters(**{"tenant": "default", **filters})
        expected = [job for job in reversed(made) if job.tenant == wanted.tenant and fits(job)]
        read = walk(
            driver,
            lambda tx, last: search.jobs(tx, wanted, before_id=last.job.id if last else None, most=4),
        )
        assert [stored.job for stored in read] == expected

    def test_count_what_is_not_final(self, driver: Driver) -> None:
        only(driver, lambda tx: insert_jobs(tx, self.made()[:6]))
        assert driver.read(search.open_by_state) == {
            ("bfl", "accepted"): 1,
            ("bfl", "queued"): 1,
            ("fal", "accepted"): 1,
            ("fal", "queued"): 1,
        }


class TestJobs:
    def test_that_do_not_exist_are_missing(self, driver: Driver) -> None:
        only(driver, lambda tx: insert_jobs(tx, [new_job()]))
        assert list(driver.read(lambda tx: jobs.load(tx, ["job_2", "job_1", "job_1"]))) == ["job_1"]
        assert driver.read(lambda tx: jobs.load(tx, [])) == {}
        assert driver.read(lambda tx: jobs.large(tx, "job_2")) is None

    def test_that_somebody_else_changed_are_not_overwritten(self, driver: Driver) -> None:
        """Compare-and-swap stands behind the locks."""
        only(driver, lambda tx: insert_jobs(tx, [new_job()]))
        seen = driver.read(lambda tx: jobs.load(tx, ["job_1"]))["job_1"]
        change = Change(seen, Stored(replace(seen.job, version=2), 1, "h", 0))
        only(driver, lambda tx: jobs.save_many(tx, [change], {}))
        [outcome] = driver.write([lambda tx: jobs.save_many(tx, [change], {})])
        assert type(outcome.error).__name__ == "WriteConflict"

    def test_that_are_overdue_are_listed_longest_first(self, driver: Driver) -> None:
        made = [new_job(f"job_{number}", deadline_ms=NOW - number) for number in range(-2, 5)]
        ended = new_job(
            "job_9", deadline_ms=1, state=JobState.SUCCEEDED, completed_ms=2, output=Output(images=())
        )
        only(driver, lambda tx: insert_jobs(tx, [*made, ended]))
        told = driver.read(lambda tx: jobs.overdue(tx, now_ms=NOW, most=3))
        assert told == ["job_4", "job_3", "job_2"]
        assert len(driver.read(lambda tx: jobs.overdue(tx, now_ms=NOW, most=100))) == 5

    def test_are_found_by_their_providers_request(self, driver: Driver) -> None:
        with_attempts(driver, 1, provider_request_id="req-1")
        assert driver.read(lambda tx: jobs.holder_of(tx, provider="fal", request_id="req-1")) == "att_0"
        assert driver.read(lambda tx: jobs.holder_of(tx, provider="bfl", request_id="req-1")) is None

    @pytest.mark.parametrize(
        ("learned_by", "taught"), [(LearnedBy.CALLBACK, [700] * 3), (LearnedBy.POLL, [])]
    )
    def test_teach_how_long_a_model_takes_where_a_callback_told(
        self, driver: Driver, learned_by: LearnedBy, taught: list[int]
    ) -> None:
        with_attempts(
            driver,
            3,
            submitted_ms=NOW,
            completed_ms=NOW + 700,
            outcome=AttemptState.SUCCEEDED,
            state=AttemptState.SUCCEEDED,
            learned_by=learned_by,
        )
        assert driver.read(lambda tx: jobs.durations_ms(tx, provider="fal", model="m")) == taught
        assert driver.read(lambda tx: jobs.durations_ms(tx, provider="fal", model="other")) == []

    def test_keep_their_input_apart(self, driver: Driver) -> None:
        only(driver, lambda tx: insert_jobs(tx, [new_job("job_1"), new_job("job_2")]))
        assert driver.read(lambda tx: jobs.inputs(tx, ["job_1", "job_2"])) == {"job_1": "{}", "job_2": "{}"}
        assert driver.read(lambda tx: jobs.successor(tx, "job_1")) is None
        only(driver, lambda tx: insert_jobs(tx, [new_job("job_3", retry_of="job_1")]))
        assert driver.read(lambda tx: jobs.successor(tx, "job_1")) == "job_3"


def test_a_key_is_taken_by_the_first_of_a_set(driver: Driver) -> None:
    def claimed(key: str, job_id: str, tenant: str = "default") -> Claimed:
        return Claimed(tenant=tenant, key=key, body_hash=f"h {job_id}", job_id=job_id, created_ms=NOW)

    asked = [
        claimed("a", "job_1"),
        claimed("a", "job_2"),
        claimed("a", "job_3", "other"),
        claimed("b", "job_4"),
    ]
    held = only(driver, lambda tx: idempotency.take(tx, asked))
    assert {key: row["job_id"] for key, row in held.items()} == {
        ("default", "a"): "job_1",
        ("other", "a"): "job_3",
        ("default", "b"): "job_4",
    }
    again = only(driver, lambda tx: idempotency.take(tx, [claimed("a", "job_5")]))
    assert (again["default", "a"]["job_id"], again["default", "a"]["body_hash"]) == ("job_1", "h job_1")
    assert only(driver, lambda tx: idempotency.take(tx, [])) == {}


def test_a_history_of_nobody_is_empty(driver: Driver) -> None:
    assert driver.read(lambda tx: history.of_job(tx, "job_of_nobody")) == []
    assert driver.read(lambda tx: work.next_due_ms(tx, Work.ASK)) is None
