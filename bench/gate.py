"""The service, the fake provider and the limits as processes, and the settings that bind them together."""

import base64
import contextlib
import json
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench import certificate
from bench.processes import Process, free_port, load, python, run, started

API_KEY = "bench-key-that-is-long-enough"
_SECRET = base64.b64encode(sha256(b"the bench's service key").digest()).decode()


#: Of the service and of its limit alike: two web servers with a pool of 64 each. With fewer of them in flight the
#: commits have less to share, and what is measured is how long one commit takes.
CONNECTIONS = 128


@dataclass
class Gate:
    """A running service."""

    process: Process
    port: int

    def load(self, source: dict[str, Any], *, cores: set[int] | None = None, **plan: Any) -> dict[str, Any]:
        """This function will send requests to it and return what was seen, with the CPU it took here."""
        return loaded(self.process, self.port, source, cores=cores, **plan)


def loaded(
    process: Process, port: int, source: dict[str, Any], *, cores: set[int] | None = None, **plan: Any
) -> dict[str, Any]:
    """This function will send requests to a process and return what was seen, with the CPU it took there."""
    plan = {"connections": CONNECTIONS, "warm_s": 0.3, **plan}
    before = process.cpu_s()
    seen = load({"host": "127.0.0.1", "port": port, "plan": plan, "source": source}, cores=cores)
    process.must_run()
    return {**seen, "server_cpu_s": process.cpu_s() - before}


def jobs(name: str, *, path: str = "/v1/jobs", most: int | None = None, **job: Any) -> dict[str, Any]:
    """This function will describe requests that submit jobs, each under a key of its own."""
    return {"kind": "jobs", "path": path, "key": API_KEY, "name": name, "most": most, "job": job}


def settings(url: str, folder: Path, *, provider_url: str, jwks_url: str | None = None) -> dict[str, str]:
    """This function will give the service's settings."""
    return {
        "FLUXGATE_DATABASE_URL": url,
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FLUXGATE_SECRET_KEYS": _SECRET,
        "FLUXGATE_STORAGE_URL": f"file:{folder}/artifacts",
        "FLUXGATE_LOG_FORMAT": "json",
        "FAL_KEY": "bench:key",
        "FLUXGATE_FAL_QUEUE_URL": f"{provider_url}/fal-queue",
        "FLUXGATE_FAL_RUN_URL": f"{provider_url}/fal-run",
        "FLUXGATE_FAL_JWKS_URL": jwks_url or f"{provider_url}/fal-rest/.well-known/jwks.json",
        "FLUXGATE_FAL_PLATFORM_URL": f"{provider_url}/fal-api/v1",
    }


@contextlib.contextmanager
def serving(
    given: dict[str, str], folder: Path, *, work: bool = True, cores: set[int] | None = None
) -> Iterator[Gate]:
    """This function will run the service on a migrated database while the block runs."""
    run(python("service.cli.main", "migrate"), folder=folder, settings=given)
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    arguments = ("service.cli.main", "serve", "--port") if work else ("bench.web_only",)
    with started(
        python(*arguments, str(port)),
        ready_url=f"{here}/readyz",
        folder=folder,
        settings={**given, "FLUXGATE_PUBLIC_URL": here},
        cores=cores,
    ) as process:
        yield Gate(process, port)


@dataclass
class Provider:
    """A running simulator."""

    process: Process
    url: str
    tls: ssl.SSLContext | None = None

    def dials(self, **faults: Any) -> None:
        """This function will turn its dials."""
        body = json.dumps(faults).encode()
        request = urllib.request.Request(f"{self.url}/_sim/faults", data=body, method="PUT")
        with urllib.request.urlopen(request, timeout=10, context=self.tls):
            pass

    def totals(self) -> dict[str, Any]:
        """This function will give what it counted."""
        found: dict[str, Any] = self._get("stats")["totals"]
        return found

    def requests(self) -> list[dict[str, Any]]:
        """This function will give all requests that it remembers."""
        found: list[dict[str, Any]] = self._get("requests")["data"]
        return found

    def _get(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_sim/{name}", timeout=30, context=self.tls) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextlib.contextmanager
def simulating(
    folder: Path, faults: str, *, cores: set[int] | None = None, secure: bool = False
) -> Iterator[Provider]:
    """This function will run the provider simulator while the block runs; `secure`: with a certificate of its own."""
    port = free_port()
    scheme, tls, options = "http", None, ["--port", str(port)]
    if secure:
        certificate_file, key_file = certificate.written(folder)
        scheme, tls = "https", ssl.create_default_context(cafile=certificate_file)
        options = ["--tls-cert", str(certificate_file), "--tls-key", str(key_file), *options]
    url = f"{scheme}://127.0.0.1:{port}"
    command = python("service.cli.main", "simulate", "--seed", "7", "--faults", faults, *options)
    with started(command, ready_url=f"{url}/_sim/stats", tls=tls, folder=folder, cores=cores) as process:
        yield Provider(process, url, tls)


@contextlib.contextmanager
def limiting(folder: Path) -> Iterator[tuple[Process, int]]:
    """This function will run the limits' endpoints while the block runs."""
    port = free_port()
    ready = f"http://127.0.0.1:{port}/jwks.json"
    with started(python("bench.limits", str(port)), ready_url=ready, folder=folder) as process:
        yield process, port
