"""Webhooks going out: signed, posted to a consumer that only notes them, and recorded, as many as one endpoint takes.

The events stand in the stream before the clock starts, and nothing else goes on in the service. Each round is an
endpoint of its own, to which all of them are replayed: written as deliveries, sent in the order of each job, recorded.
The limit is the service's own egress client with the same bytes, the same consumer and as many requests at once.
"""

import base64
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import gate, known, outlets
from bench.databases import Database
from bench.numbers import median
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken, python, run

_AT_ONCE = 64
_WAIT_S = 60.0
#: The headers that the egress client writes itself.
_NOT_OURS = frozenset(("accept", "accept-encoding", "content-length", "host", "user-agent"))


@dataclass
class _Bench:
    """One service with its events, and one consumer."""

    database: Database
    url: str
    service: gate.Gate
    consumer: outlets.Outlet
    options: Options
    events: int
    seen: list[dict[str, Any]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)

    def round(self) -> None:
        """This function will deliver everything to a new endpoint, and then measure the limit."""
        with outlets.endpoint(self.service, self.consumer.url, concurrency=_AT_ONCE) as endpoint:
            before = self._cpu_s()
            outlets.call(self.service, "POST", f"/v1/endpoints/{endpoint['id']}/replay", {"after": None})
            outlets.until(
                lambda: self._over(endpoint["id"]), wait_s=_WAIT_S, what=f"{self.events} deliveries"
            )
            spent = {name: after - before[name] for name, after in self._cpu_s().items()}
        sample = self.consumer.ask("sample")
        _check_signed(sample, endpoint["secret"])
        self._check_all_came()
        self.seen.append({"per_s": self.events / self._took_s(endpoint["id"]), **spent})
        self.consumer.ask("forget")
        self._measure_limit(sample)
        self.consumer.ask("forget")

    def _cpu_s(self) -> dict[str, float]:
        return {
            "service": self.service.process.cpu_s(),
            "database": self.database.cpu_s(),
            "consumer": self.consumer.process.cpu_s(),
        }

    def _over(self, endpoint_id: str) -> bool:
        ended = "SELECT count(*) FROM delivery WHERE endpoint_id = '%s' AND state <> 'pending'"
        return bool(known.rows(self.url, ended % endpoint_id)[0][0] >= self.events)

    def _check_all_came(self) -> None:
        came = [receipt.event_id for receipt in self.consumer.receipts()]
        if not len(came) == len(set(came)) == self.events:
            raise Broken(f"{self.events} events, {len(came)} arrived, {len(set(came))} different ones")

    def _took_s(self, endpoint_id: str) -> float:
        """From the first request to the last record."""
        found = known.rows(
            self.url,
            "SELECT min(at_ms), max(completed_ms), max(tries), min(delivery_try.status), max(delivery_try.status)"
            f" FROM delivery JOIN delivery_try ON delivery_id = delivery.id WHERE endpoint_id = '{endpoint_id}'",
        )
        first_ms, last_ms, tries, *statuses = found[0]
        if (tries, statuses) != (1, [204, 204]):
            raise Broken(f"up to {tries} tries, answered {statuses}")
        return float(last_ms - first_ms) / 1000

    def _measure_limit(self, sample: dict[str, Any]) -> None:
        file = self.options.folder / "webhook.json"
        headers = {name: value for name, value in sample["headers"].items() if name not in _NOT_OURS}
        file.write_text(json.dumps({**sample, "headers": headers}))
        arguments = (self.consumer.url, str(file), str(_AT_ONCE), str(self.options.posting_s))
        said = run(python("bench.posting", *arguments), folder=self.options.folder, settings={})
        self.limits.append(json.loads(said))


def _check_signed(sample: dict[str, Any], secret: str) -> None:
    """What came is signed with the endpoint's secret, or nothing was measured."""
    headers, key = sample["headers"], base64.b64decode(secret.removeprefix("whsec_"))
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{sample['body']}".encode("latin-1")
    signature = "v1," + base64.b64encode(hmac.digest(key, said, "sha256")).decode()
    if signature not in headers["webhook-signature"].split():
        raise Broken("a webhook came without a signature that fits")


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure deliveries."""
    folder = options.folder
    with database.fresh() as url, outlets.consuming(folder) as consumer:
        given = {**gate.settings(url, folder, provider_url="http://127.0.0.1:9"), **outlets.ALLOWED}
        run(
            python("bench.prepare", str(options.delivered_jobs), str(folder / "unused.pickle")),
            folder=folder,
            settings=given,
        )
        events = int(known.rows(url, "SELECT count(*) FROM event")[0][0])
        print(f"  {database.name}: {options.delivery_rounds} times {events} deliveries", flush=True)
        with gate.serving(given, folder) as service:
            # What is new is handed out by itself: an endpoint that comes before that is over would get it twice.
            passed = f"SELECT count(*) FROM counter WHERE name = 'fan_out' AND value >= {events}"
            outlets.until(lambda: known.rows(url, passed)[0][0] == 1, wait_s=_WAIT_S, what="the fan-out")
            bench = _Bench(database, url, service, consumer, options, events)
            for _ in range(options.delivery_rounds):
                bench.round()
    yield _line(bench)


def _line(bench: _Bench) -> Line:
    seen = sorted(bench.seen, key=lambda seen: seen["per_s"])[len(bench.seen) // 2]
    return Line(
        what="deliveries signed and recorded",
        database=bench.database.name,
        figure=median([seen["per_s"] for seen in bench.seen]),
        unit="/s",
        limit=median([limit["per_s"] for limit in bench.limits]),
        limit_is="the egress client alone",
        notes={
            "at_once": _AT_ONCE,
            "events": bench.events,
            **{
                f"{name}_cpu_ms_each": round(1000 * seen[name] / bench.events, 3)
                for name in ("service", "database", "consumer")
            },
            "limit_cpu_ms_each": round(median([limit["cpu_ms_each"] for limit in bench.limits]), 3),
        },
    )
