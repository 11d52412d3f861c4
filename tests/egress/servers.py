"""Users' servers as they may be: real sockets on several loopback addresses, with or without TLS of a private CA.

Loopback has many addresses: 127.0.0.1 stands for a public one (the tests allow it), 127.0.0.2 for a private one.
"""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PUBLIC = "127.0.0.1"
PRIVATE = "127.0.0.2"
ALLOWED = (ip_network(f"{PUBLIC}/32"),)
NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """What a server was asked."""

    port: int = 0
    connections: int = 0
    #: Head and body of each request.
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    #: The name in each TLS greeting.
    server_names: list[str | None] = field(default_factory=list)
    #: How many connections ended.
    ended: int = 0

    def header(self, name: str, place: int = -1) -> str | None:
        """Give a header of a request."""
        for line in self.requests[place][0].split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    return head, await reader.readexactly(int(lengths[0].split(":")[1]))


def answer(
    body: bytes = b"ok", *, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(*answers: bytes, close: bool = False) -> Behaviour:
    """Answer the requests of a connection, the last answer again and again."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while True:
            await request_of(reader)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
            if close:
                return

    return behave


@asynccontextmanager
async def serving(
    behave: Behaviour, *, address: str = PUBLIC, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Seen]:
    """Run a server; each connection is given to `behave` and closed after it."""
    seen = Seen()
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.connections += 1
        try:
            await behave(_Noting(reader, seen), writer)  # type: ignore[arg-type]
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            seen.ended += 1
            writer.close()

    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: seen.server_names.append(name)
    server = await asyncio.start_server(one, address, port, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Noting:
    """A reader that notes the requests that are read from it."""

    def __init__(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        self._reader = reader
        self._seen = seen

    async def readuntil(self, mark: bytes) -> bytes:
        head = await self._reader.readuntil(mark)
        self._seen.requests.append((head.decode("latin-1"), b""))
        return head

    async def readexactly(self, count: int) -> bytes:
        body = await self._reader.readexactly(count)
        self._seen.requests[-1] = (self._seen.requests[-1][0], body)
        return body

    async def read(self, count: int = -1) -> bytes:
        return await self._reader.read(count)


class Names:
    """A resolver whose answers are scripted: each name has a list, and the last answer stays."""

    def __init__(self, **answers: Sequence[str | OSError | Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        left = self._answers.get(host)
        if not left:
            raise OSError("no such name")
        given = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(given, OSError):
            raise given
        return [given] if isinstance(given, str) else list(given)


class Authority:
    """A private certificate authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A private authority")])
        self._certificate = (
            _unsigned(name, name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def trusting(self) -> ssl.SSLContext:
        """Make a client's TLS settings that trust this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(
            cadata=self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        )
        return context

    def serving(self, *hosts: str) -> ssl.SSLContext:
        """Make a server's TLS settings with a certificate for names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A server")])
        signed = (
            _unsigned(name, self._certificate.subject, key)
            .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{hosts[0]}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + signed.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1000))
        .not_valid_after(NOW + dt.timedelta(days=10000))
    )
