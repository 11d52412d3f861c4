"""Sinks over TLS: the server's certificate is checked as the system would."""

import datetime as dt
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.sinks.base import Kind, Sink, SinkTrouble, Tail
from service.sinks.nats import NatsSink
from service.sinks.redis import RedisSink
from tests.sinks.brokers import NatsBroker, RedisBroker
from tests.sinks.messages import several


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Give a certificate of 127.0.0.1 that signs itself, its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "broker.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


async def checked(sink: Sink, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkTrouble, match="not trusted") as caught:
        await sink.open()
    assert caught.value.kind is Kind.UNREACHABLE
    await sink.close()
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert await sink.open() == Tail(0)
    assert await sink.publish(several(1, 3), after=0) == 3
    await sink.close()


async def test_redis_is_spoken_to_in_tls_when_its_certificate_is_trusted(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)]
    broker = RedisBroker(tmp_path / "broker", *files, "--tls-auth-clients", "no")
    plain = broker.command
    broker.command = lambda: [  # type: ignore[method-assign]
        *plain(), "--tls-port", str(broker.port), "--port", "0",
    ]  # fmt: skip
    try:
        await broker.start()
        url = f"rediss://127.0.0.1:{broker.port}"
        await checked(RedisSink(url=url, stream="fluxgate:events"), certificate, monkeypatch)
    finally:
        broker.close()


async def test_nats_is_spoken_to_in_tls_when_its_certificate_is_trusted(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["--tlscert", str(certificate), "--tlskey", str(certificate)]
    broker = NatsBroker(tmp_path / "broker", "--tls", *files)
    try:
        await broker.start()
        url = f"tls://127.0.0.1:{broker.port}"
        await checked(NatsSink(url=url, stream="FLUXGATE"), certificate, monkeypatch)
    finally:
        broker.close()
