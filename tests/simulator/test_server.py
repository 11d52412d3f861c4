"""The simulator as a process: TLS, the official client, signals."""

import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.simulator.app import running
from service.simulator.faults import FaultError, parse
from service.simulator.server import Listener

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import json, sys
from service.simulator.app import run
from service.simulator.faults import parse
spec, cert, key = sys.argv[1:]
run(port=0, faults=parse(spec), seed=4, tls_cert=cert or None, tls_key=key or None,
    ready=lambda url, seed: print(json.dumps([url, seed]), flush=True))
"""
CLIENT = """
import asyncio, json, fal_client
seen = []
done = fal_client.subscribe("fal-ai/flux-2", {"prompt": "a fox", "seed": 15860307465884635512},
                            with_logs=True, on_queue_update=lambda update: seen.append(type(update).__name__))
handle = fal_client.submit("fal-ai/flux-2/klein/4b", {"prompt": "a fox"})
by_id = fal_client.result("fal-ai/flux-2/klein/4b", handle.request_id)
ran = fal_client.run("fal-ai/flux-2", {"prompt": "a fox"})
try:
    fal_client.subscribe("fal-ai/flux-2", {"prompt": "a fox", "num_images": 9})
    failure = None
except fal_client.FalClientHTTPError as error:
    failure = error.status_code
async def later():
    handle = await fal_client.submit_async("fal-ai/flux-2", {"prompt": "a fox"})
    events = [type(event).__name__ async for event in handle.iter_events()]
    return events[-1], len((await handle.get())["images"])
waiting = fal_client.submit("fal-ai/flux-2", {"prompt": "a fox"})
waiting.cancel()
print(json.dumps({"seen": seen, "seed": done["seed"], "by_id": len(by_id["images"]), "ran": len(ran["images"]),
                  "failure": failure, "later": asyncio.run(later())}))
"""


def wait_until_taken(url: str) -> None:
    """Wait until a submit has been taken."""
    with httpx.Client(trust_env=False) as http:
        while not http.get(f"{url}/_sim/stats").json()["totals"]["requests"]["accepted"]:
            time.sleep(0.02)


@contextmanager
def simulator_process(
    spec: str = "", cert: str = "", key: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-c", SERVE, spec, cert, key]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url, seed = json.loads(process.stdout.readline())
            assert seed == 4
            yield url, process
        finally:
            process.kill()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulator")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


@pytest.mark.slow
def test_the_official_client_works_unchanged_over_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with simulator_process("queue_ms=150,run_ms=250", str(cert), str(key)) as (url, _):
        assert url.startswith("https://127.0.0.1:")
        host = url.removeprefix("https://")
        environment = {
            "PATH": os.environ["PATH"], "FAL_KEY": "test", "SSL_CERT_FILE": str(cert),
            "FAL_QUEUE_RUN_HOST": f"{host}/fal-queue", "FAL_RUN_HOST": f"{host}/fal-run",
        }  # fmt: skip
        client = subprocess.run(
            [sys.executable, "-c", CLIENT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert client.returncode == 0, client.stderr
        seen = json.loads(client.stdout)
        with httpx.Client(verify=ssl.create_default_context(cafile=str(cert)), trust_env=False) as http:
            stats = http.get(f"{url}/_sim/stats").json()["providers"]["fal"]
    assert [*dict.fromkeys(seen["seen"])] == ["Queued", "InProgress", "Completed"]
    assert (seen["seed"], seen["by_id"], seen["ran"]) == (15860307465884635512, 1, 1)
    assert (seen["failure"], seen["later"]) == (422, ["Completed", 1])
    assert (stats["requests"]["accepted"], stats["requests"]["canceled"]) == (6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_0_although_a_submit_hangs(number: signal.Signals) -> None:
    with (
        simulator_process("submit_timeout=1") as (url, process),
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as hanging,
    ):
        hanging.sendall(b"POST /fal-queue/fal-ai/flux-2 HTTP/1.1\r\nHost: x\r\nAuthorization: Key k\r\n")
        hanging.sendall(b"Content-Length: 2\r\n\r\n{}")
        wait_until_taken(url)
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert hanging.recv(1) == b""


@pytest.mark.anyio
async def test_the_simulator_runs_inside_a_program_on_a_free_port() -> None:
    async with running(faults=parse("queue_ms=0,run_ms=0"), seed=9) as simulator:
        async with httpx.AsyncClient(base_url=simulator.url, trust_env=False) as http:
            submit = await http.post("/bfl/v1/flux-2-pro", json={"prompt": "x"}, headers={"x-key": "k"})
            shown = (await http.get("/_sim/stats")).json()
        assert submit.json()["polling_url"].startswith(simulator.url)
        assert shown["seed"] == simulator.stats()["seed"] == 9
        assert [row["id"] for row in simulator.requests("bfl")] == [submit.json()["id"]]
        with pytest.raises(FaultError):
            simulator.set_faults(dorp=1)
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{simulator.url}/_sim/stats")


def test_an_address_in_use_and_half_a_certificate_are_refused_before_anything_is_served(
    tmp_path: Path,
) -> None:
    first = Listener("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        Listener("127.0.0.1", first.port)
    first.socket.close()
    with pytest.raises(ValueError, match="go together"):
        Listener("127.0.0.1", 0, tls_cert=tmp_path / "cert.pem")
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(OSError):  # noqa: PT011
        Listener("127.0.0.1", 0, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "cert.pem")
