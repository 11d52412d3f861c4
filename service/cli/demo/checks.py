"""What must hold after a demo, each promise by its name; pure functions of what both sides told."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

FINAL = frozenset(("succeeded", "failed", "blocked", "canceled", "expired"))
#: A verdict that lets a callback move a job.
_BELIEVED = "verified"
_GENUINE = frozenset((_BELIEVED, "duplicate"))
#: Events about a job that has ended; they tell of a fact that moved nothing.
_AFTER_THE_END: Mapping[str, frozenset[str]] = {
    "job.archived": frozenset(("result.kept",)),
    "job.late_result": frozenset(("provider.succeeded", "provider.failed", "provider.blocked")),
}

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the service says (jobs, histories, callbacks, feed) and what the simulator says of the same time."""

    jobs: Sequence[Row]
    histories: Mapping[str, Sequence[Row]]
    callbacks: Mapping[str, Sequence[Row]]
    feed: Sequence[Row]
    #: Ids of the events that a reader saw who followed the feed from the start.
    watched: Sequence[str]
    #: By provider, how many requests it took.
    accepted: Mapping[str, int]
    requests: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One promise, and whether it was kept; `detail` says what was counted, or what is wrong."""

    name: str
    held: bool
    detail: str


def _check(name: str, problems: Iterable[str], counted: str) -> Check:
    found = list(problems)
    return Check(name=name, held=not found, detail="; ".join(found[:3]) if found else counted)


def all_checks(record: Record) -> list[Check]:
    """This function will check everything; a record of nothing fails."""
    checks: tuple[Callable[[Record], Check], ...] = (every_job_is_final, taken_once, nothing_forged_moved)
    return [*(check(record) for check in checks), feed_is_history(record), *learned_both_ways(record)]


def every_job_is_final(record: Record) -> Check:
    """This function will check that no job is open."""
    open_jobs = [f"{job['id']} is {job['state']}" for job in record.jobs if job["state"] not in FINAL]
    problems = open_jobs if record.jobs else ["there are no jobs"]
    ends = Counter(job["state"] for job in record.jobs)
    return _check(
        "every job is final", problems, ", ".join(f"{count} {state}" for state, count in sorted(ends.items()))
    )


def taken_once(record: Record) -> Check:
    """This function will check that each provider took exactly the requests that are attempts here."""
    attempts: defaultdict[str, list[str | None]] = defaultdict(list)
    taken: defaultdict[str, list[str]] = defaultdict(list)
    for job in record.jobs:
        for attempt in job["attempts"]:
            attempts[attempt["provider"]].append(attempt["provider_request_id"])
    for request in record.requests:
        taken[request["provider"]].append(request["id"])

    def problems() -> Iterator[str]:
        for provider in sorted({*attempts, *record.accepted}):
            count, accepted = len(attempts[provider]), record.accepted.get(provider, 0)
            if count != accepted:
                yield f"{provider} took {accepted} requests for {count} attempts"
            elif Counter(attempts[provider]) != Counter(taken[provider]):
                yield f"{provider} knows other request ids than we do"

    counted = ", ".join(f"{provider} {len(ids)}" for provider, ids in sorted(attempts.items()))
    return _check(
        "the provider took as many requests as there are attempts",
        problems() if attempts else ["no attempt"],
        counted,
    )


def nothing_forged_moved(record: Record) -> Check:
    """This function will check that what was forged is kept as refused, is in the history, and moved nothing."""
    sent = _forgeries(record)
    refused = 0
    problems: list[str] = [] if sent else ["no forged callback was sent"]
    for job in record.jobs:
        kept = [callback for callback in record.callbacks[job["id"]] if callback["verdict"] not in _GENUINE]
        refused += len(kept)
        expected = sum(sent.get(attempt["provider_request_id"], 0) for attempt in job["attempts"])
        if len(kept) < expected:
            problems.append(
                f"{job['id']}: {expected} forged callbacks came and {len(kept)} refused ones are kept"
            )
        problems += _wrongly_moved(job["id"], record)
    return _check(
        "forged callbacks moved nothing",
        problems,
        f"{sum(sent.values())} were forged, {refused} refused ones are kept",
    )


def _forgeries(record: Record) -> dict[str, int]:
    """By request id, how many forged callbacks reached us: they were answered with a status."""
    sent = {
        request["id"]: sum(
            answer["kind"].startswith("forged:") and isinstance(answer["status"], int)
            for answer in request["answers"]
        )
        for request in record.requests
    }
    return {request_id: count for request_id, count in sent.items() if count}


def _wrongly_moved(job_id: str, record: Record) -> Iterator[str]:
    verdicts = {callback["id"]: callback["verdict"] for callback in record.callbacks[job_id]}
    told: set[str] = set()
    for line in record.histories[job_id]:
        source, _, callback_id = line["cause"].partition(":")
        if source != "callback":
            continue
        told.add(callback_id)
        if line["moved"] and verdicts.get(callback_id) != _BELIEVED:
            yield f"{job_id} was moved by {callback_id}, which is {verdicts.get(callback_id, 'not kept')}"
    for callback_id in sorted(set(verdicts) - told):
        if verdicts[callback_id] not in _GENUINE:
            yield f"{job_id}: the history does not tell of {callback_id}"


def feed_is_history(record: Record) -> Check:
    """This function will check that the feed tells exactly the moves of the histories, in order and without gaps."""
    by_job: defaultdict[str, list[Row]] = defaultdict(list)
    for event in record.feed:
        by_job[event["job_id"]].append(event)
    problems: list[str] = [] if record.feed else ["the feed is empty"]
    positions = [event["seq"] for event in record.feed]
    if any(later <= earlier for earlier, later in pairwise(positions)):
        problems.append("seq does not grow")
    if list(record.watched) != [event["id"] for event in record.feed[: len(record.watched)]]:
        problems.append("who followed the feed saw other events than who read it afterwards")
    strangers = set(by_job) - {job["id"] for job in record.jobs}
    problems += [f"{job_id} is in the feed and no job" for job_id in sorted(strangers)]
    for job in record.jobs:
        problems += _unlike_history(job, by_job[job["id"]], record.histories[job["id"]])
    moves = sum(1 for lines in record.histories.values() for line in lines if line["moved"])
    return _check("the feed equals the histories", problems, f"{len(record.feed)} events, {moves} moves")


def _unlike_history(job: Row, events: Sequence[Row], lines: Sequence[Row]) -> Iterator[str]:
    job_id = job["id"]
    if [event["job_seq"] for event in events] != list(range(1, len(events) + 1)):
        yield f"{job_id}: job_seq has gaps"
    told = [
        (event["type"], event["timestamp"], event["data"]["state"])
        for event in events
        if event["type"] not in _AFTER_THE_END
    ]
    moved = [(named, line["at"], line["to"]) for line in lines if (named := _event_of(line)) is not None]
    if told != moved:
        yield f"{job_id}: the feed tells {[one[0] for one in told]}, the history {[one[0] for one in moved]}"
    for event in events:
        facts = _AFTER_THE_END.get(event["type"], frozenset())
        if facts and not any(line["type"] in facts and line["at"] == event["timestamp"] for line in lines):
            yield f"{job_id}: no line of the history tells of {event['type']}"
    if not events or events[-1]["data"]["state"] != job["state"]:
        yield f"{job_id}: the last event does not tell that it is {job['state']}"


def _event_of(line: Row) -> str | None:
    """The event that a move makes; being sent, and being put off, are nobody's business but ours."""
    before, after = line["from"], line["to"]
    if not line["moved"] or after == "submitting" or (after == "accepted" and before is not None):
        return None
    if after == "queued":
        return "job.queued" if before == "running" else "job.submitted"
    return f"job.{after}"


def learned_both_ways(record: Record) -> Iterator[Check]:
    """This function will check, for each provider, that one job was learned by callback and one by poll."""
    providers = sorted({job["provider"] for job in record.jobs} | set(record.accepted))
    for provider in providers:
        ways = Counter(job["learned_by"] for job in record.jobs if job["provider"] == provider)
        missing = [f"none by {way}" for way in ("callback", "poll") if not ways[way]]
        counted = ", ".join(f"{count} by {way}" for way, count in sorted(ways.items(), key=str))
        yield _check(f"{provider}: learned by callback and by poll", missing, counted)
