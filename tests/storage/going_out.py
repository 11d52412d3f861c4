"""What the tests of endpoints and deliveries share: samples that are plain where a test names nothing, and acts."""

from collections.abc import Sequence
from typing import Any

from service.domain.endpoint import Delivery, Endpoint, Tried, after_try
from service.storage import deliveries, endpoints, events
from service.storage.database import Driver, Tx
from service.storage.events import Event
from tests.storage.world import NOW, only


def endpoint(endpoint_id: str = "ep_1", **fields: Any) -> Endpoint:
    """Make an endpoint; one that is not for jobs has a secret."""
    given = {"tenant": "default", "url": "https://consumer.example/hook", **fields}
    if not given.get("for_jobs"):
        given.setdefault("secret", "s1.sealed")
    return Endpoint(**{"id": endpoint_id, "created_ms": NOW, "updated_ms": NOW, **given})


def event(seq: int, job_id: str | None = "job_1", **fields: Any) -> Event:
    return Event(
        **{
            "id": f"evt_{seq:04d}",
            "tenant": "default",
            "type": "job.queued",
            "job_id": job_id,
            "job_seq": None if job_id is None else seq,
            "at_ms": NOW,
            "data": f'{{"n":{seq}}}',
            **fields,
        }
    )


def delivery_of(told: Event, endpoint_id: str = "ep_1", **fields: Any) -> Delivery:
    return Delivery(
        **{
            "id": f"dlv_{told.seq or int(told.id[4:]):04d}{endpoint_id}",
            "tenant": told.tenant,
            "endpoint_id": endpoint_id,
            "event_id": told.id,
            "event_seq": told.seq or int(told.id[4:]),
            "event_type": told.type,
            "job_id": told.job_id,
            "created_ms": NOW,
            "next_ms": NOW,
            **fields,
        }
    )


def happen(driver: Driver, jobs: Sequence[str | None], *, to: Sequence[str] = ("ep_1",)) -> list[Delivery]:
    """Let events of jobs happen, the first ones of this database, with a delivery to each endpoint."""
    told = [event(place, job_id) for place, job_id in enumerate(jobs, start=1)]
    made = [delivery_of(each, endpoint_id) for each in told for endpoint_id in to]
    only(driver, lambda tx: (events.append(tx, told), deliveries.insert(tx, made)))
    return made


def insert(driver: Driver, *made: Endpoint) -> None:
    def write(tx: Tx) -> None:
        for each in made:
            endpoints.insert(tx, each)

    only(driver, write)


def sendable(driver: Driver, endpoint_id: str = "ep_1", *, now_ms: int = NOW, most: int = 100) -> list[int]:
    """Tell the numbers of the events that may be sent now."""
    found = driver.read(lambda tx: deliveries.sendable(tx, endpoint_id=endpoint_id, now_ms=now_ms, most=most))
    return [each.delivery.event_seq for each in found]


def reread(driver: Driver, delivery: Delivery) -> Delivery:
    found = driver.read(lambda tx: deliveries.one(tx, delivery.id))
    assert isinstance(found, Delivery)
    return found


def tried(driver: Driver, delivery: Delivery, status: int, *, now_ms: int = NOW) -> Delivery:
    """Record a try of a delivery as it is now, and give it back as it is then."""
    after = after_try(
        endpoint(),
        reread(driver, delivery),
        Tried(at_ms=now_ms, took_ms=5, status=status, answer="ok"),
        now_ms=now_ms,
        jitter=0.0,
    )
    only(driver, lambda tx: deliveries.record(tx, [(after.delivery, after.made)]))
    return reread(driver, delivery)
