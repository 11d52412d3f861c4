"""The exchange against real sockets that misbehave, and against answers made by respx."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.providers.base import Answer, Call, Reply, Stage, Trouble
from service.providers.exchange import MAX_REPLY_BYTES, Exchange, Fetched
from service.providers.transport import tls_context

pytestmark = pytest.mark.anyio

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TLS = tls_context()
SECRET = "key-that-must-not-be-shown"


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    made = Exchange(tls=TLS)
    yield made
    await made.aclose()


@asynccontextmanager
async def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server on a free port; every connection is given to `behave` and closed after it."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hang up at once."""


async def head_of(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    if length:
        await reader.readexactly(int(length[0].split(":")[1]))
    return head


def call(url: str, *, method: str = "POST", timeout_s: float = 5.0) -> Call:
    body = b'{"prompt":"a fox"}' if method == "POST" else None
    return Call(method=method, url=url, headers={"x-key": SECRET}, body=body, timeout_s=timeout_s)


def talk(*calls: Call) -> Generator[Call, Answer, list[Answer]]:
    answers = []
    for one in calls:
        answers.append((yield one))
    return answers


async def answer_to(exchange: Exchange, one: Call) -> Answer:
    return (await exchange.run(talk(one)))[0]


async def trouble_with(exchange: Exchange, one: Call) -> Trouble:
    answer = await answer_to(exchange, one)
    assert isinstance(answer, Trouble)
    assert SECRET not in answer.reason
    assert "://" not in answer.reason
    assert "127.0.0.1" not in answer.reason
    return answer


class TestWhatProvablyDidNotLeave:
    async def test_a_refused_connection_was_not_sent(self, exchange: Exchange) -> None:
        async with serving(nothing) as port:
            pass
        trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.NOT_SENT

    async def test_a_name_that_does_not_resolve_was_not_sent(self, exchange: Exchange) -> None:
        trouble = await trouble_with(exchange, call("http://nowhere.invalid/v1/x"))
        assert trouble.stage is Stage.NOT_SENT

    async def test_a_server_that_speaks_no_tls_was_not_sent_anything(self, exchange: Exchange) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"this is no TLS\r\n" * 20)
            await writer.drain()

        async with serving(babble) as port:
            trouble = await trouble_with(exchange, call(f"https://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.NOT_SENT

    async def test_a_certificate_that_nobody_signed_was_not_sent_anything(
        self, exchange: Exchange, tmp_path: Path
    ) -> None:
        heads: list[str] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))

        async with serving(listen, tls=self_signed(tmp_path)) as port:
            trouble = await trouble_with(exchange, call(f"https://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.NOT_SENT
        assert heads == []

    async def test_a_tls_handshake_that_hangs_until_our_timeout_was_not_sent(
        self, exchange: Exchange
    ) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with serving(hang) as port:
            trouble = await trouble_with(exchange, call(f"https://127.0.0.1:{port}/v1/x", timeout_s=0.3))
        assert trouble.stage is Stage.NOT_SENT

    async def test_waiting_in_vain_for_a_free_connection_was_not_sent(self) -> None:
        exchange = Exchange(tls=TLS, connections=1)
        heads: list[str] = []

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            await reader.read()

        async with serving(hang) as port:
            first = asyncio.create_task(
                answer_to(exchange, call(f"http://127.0.0.1:{port}/1", timeout_s=1.0))
            )
            while not heads:
                await asyncio.sleep(0.005)
            second = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/2", timeout_s=0.2))
            held = await first
        await exchange.aclose()
        assert second.stage is Stage.NOT_SENT
        assert isinstance(held, Trouble)
        assert held.stage is Stage.MAYBE_SENT
        assert len(heads) == 1

    @pytest.mark.parametrize(
        "url", ["ftp://127.0.0.1/x", "http://", "nonsense", "http://[::1", "http://a\x00b/"]
    )
    async def test_what_is_no_http_url_was_not_sent(self, exchange: Exchange, url: str) -> None:
        assert (await trouble_with(exchange, call(url))).stage is Stage.NOT_SENT

    async def test_a_header_that_would_smuggle_another_was_not_sent(self, exchange: Exchange) -> None:
        async with serving(nothing) as port:
            smuggling = Call(method="GET", url=f"http://127.0.0.1:{port}/", headers={"x-key": "a\r\nb: c"})
            assert (await trouble_with(exchange, smuggling)).stage is Stage.NOT_SENT


class TestWhatMayHaveLeft:
    async def test_a_server_that_hangs_up_at_once_may_have_it(self, exchange: Exchange) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            return

        async with serving(hang_up) as port:
            trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.MAYBE_SENT

    async def test_a_server_that_reads_and_hangs_up_got_it_once(self, exchange: Exchange) -> None:
        heads: list[str] = []

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))

        async with serving(hang_up) as port:
            trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.MAYBE_SENT
        assert len(heads) == 1

    async def test_a_reset_after_sending_may_have_been_taken(self, exchange: Exchange) -> None:
        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.transport.abort()

        async with serving(reset) as port:
            trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.MAYBE_SENT

    async def test_silence_until_the_timeout_may_have_been_taken(self, exchange: Exchange) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            await reader.read()

        async with serving(hang) as port:
            trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x", timeout_s=0.2))
        assert trouble.stage is Stage.MAYBE_SENT

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello",
            b"SMTP ready\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ],
        ids=[
            "half",
            "half chunked",
            "bad chunk",
            "half head",
            "bad gzip",
            "no HTTP",
            "long header",
            "bad length",
        ],
    )
    async def test_an_answer_that_is_not_whole_may_have_been_taken(
        self, exchange: Exchange, answer: bytes
    ) -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(answer)
            await writer.drain()

        async with serving(half) as port:
            trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.MAYBE_SENT

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_larger_answer_than_allowed_is_not_read_to_its_end(
        self, exchange: Exchange, announced: bool
    ) -> None:
        written = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            await head_of(reader)
            length = b"Content-Length: 1000000000\r\n" if announced else b""
            writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
            while written < 1_000_000_000:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536

        async with serving(flood) as port:
            trouble = await trouble_with(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert trouble.stage is Stage.MAYBE_SENT
        assert written < 4 * MAX_REPLY_BYTES

    async def test_a_kept_connection_that_the_server_closed_is_no_second_post(
        self, exchange: Exchange
    ) -> None:
        heads: list[str] = []

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            heads.append(await head_of(reader))

        async with serving(once) as port:
            url = f"http://127.0.0.1:{port}/v1/x"
            first, second = await exchange.run(talk(call(url), call(url)))
        assert isinstance(first, Reply)
        assert isinstance(second, Trouble)
        assert second.stage is Stage.MAYBE_SENT
        assert len(heads) == 2

    async def test_a_question_on_a_kept_connection_that_was_closed_is_repeated(
        self, exchange: Exchange
    ) -> None:
        connections = 0

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await head_of(reader)

        async with serving(once) as port:
            url = f"http://127.0.0.1:{port}/v1/x"
            answers = await exchange.run(talk(call(url, method="GET"), call(url, method="GET")))
        assert [type(answer) for answer in answers] == [Reply, Reply]
        assert connections == 2


class TestAnswers:
    async def test_a_redirect_is_an_answer_and_is_not_followed(self, exchange: Exchange) -> None:
        heads: list[str] = []

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

        async with serving(redirect) as port:
            answer = await answer_to(exchange, call(f"http://127.0.0.1:{port}/v1/x"))
        assert isinstance(answer, Reply)
        assert answer.status == 307
        assert len(heads) == 1

    async def test_neither_cookies_nor_proxies_come_along(
        self, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        heads: list[str] = []

        async def bake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                heads.append(await head_of(reader))
                writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

        async with serving(bake) as port:
            url = f"http://127.0.0.1:{port}/v1/x"
            await exchange.run(talk(call(url), call(url)))
        assert len(heads) == 2
        assert all("cookie" not in head.lower() and "accept-encoding: identity" in head for head in heads)

    async def test_the_url_goes_out_as_it_was_written(self, exchange: Exchange) -> None:
        target = "/a%2Fb/c.png?se=2026-11-20T12%3A10%3A00Z&sig=dGVz%2BdA%3D%3D&rsct=image/jpeg"
        heads: list[str] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        async with serving(listen) as port:
            await answer_to(exchange, call(f"http://127.0.0.1:{port}{target}", method="GET"))
        assert heads[0].startswith(f"GET {target} HTTP/1.1\r\n")

    async def test_headers_come_in_lower_case_with_the_raw_body(self, exchange: Exchange) -> None:
        with respx.mock(using="httpx") as router:
            router.post("https://queue.example/x").respond(
                429, headers={"Retry-After": "7"}, content=b"\xff\x00"
            )
            answer = await answer_to(exchange, call("https://queue.example/x"))
            assert router.calls.last.request.headers["x-key"] == SECRET
        assert isinstance(answer, Reply)
        assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "7", b"\xff\x00")

    @pytest.mark.parametrize(
        ("error", "stage"),
        [
            (httpx.ConnectError("x"), Stage.NOT_SENT),
            (httpx.ConnectTimeout("x"), Stage.NOT_SENT),
            (httpx.PoolTimeout("x"), Stage.NOT_SENT),
            (httpx.WriteError("x"), Stage.MAYBE_SENT),
            (httpx.WriteTimeout("x"), Stage.MAYBE_SENT),
            (httpx.ReadTimeout("x"), Stage.MAYBE_SENT),
            (httpx.RemoteProtocolError("x"), Stage.MAYBE_SENT),
            (httpx.CloseError("x"), Stage.MAYBE_SENT),
        ],
    )
    async def test_an_error_of_any_transport_has_its_stage(
        self, exchange: Exchange, error: Exception, stage: Stage
    ) -> None:
        with respx.mock(using="httpx") as router:
            router.post("https://queue.example/x").mock(side_effect=error)
            assert (await trouble_with(exchange, call("https://queue.example/x"))).stage is stage

    async def test_a_timeout_of_which_nothing_is_known_may_have_been_sent(self, exchange: Exchange) -> None:
        async def sleep(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(5)
            return httpx.Response(200)

        with respx.mock(using="httpx", assert_all_called=False) as router:
            router.post("https://queue.example/x").mock(side_effect=sleep)
            trouble = await trouble_with(exchange, call("https://queue.example/x", timeout_s=0.05))
        assert trouble.stage is Stage.MAYBE_SENT


class TestTalks:
    async def test_a_talk_without_calls_concludes_at_once(self, exchange: Exchange) -> None:
        assert await exchange.run(talk()) == []

    async def test_what_a_talk_raises_comes_out_and_the_talk_is_over(self, exchange: Exchange) -> None:
        def broken() -> Generator[Call, Answer, None]:
            yield call("ftp://127.0.0.1/x")
            raise LookupError("here")

        running = broken()
        with pytest.raises(LookupError, match="here"):
            await exchange.run(running)
        assert running.gi_frame is None

    async def test_a_canceled_talk_is_closed(self, exchange: Exchange) -> None:
        arrived = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            arrived.set()
            await reader.read()

        async with serving(hang) as port:
            running = talk(call(f"http://127.0.0.1:{port}/"))
            task = asyncio.create_task(exchange.run(running))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert running.gi_frame is None

    async def test_many_talks_run_side_by_side(self, exchange: Exchange) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                path = (await head_of(reader)).split(" ")[1].encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

        async with serving(echo) as port:
            answers = await asyncio.gather(
                *(answer_to(exchange, call(f"http://127.0.0.1:{port}/{n}")) for n in range(150))
            )
        bodies = [answer.body for answer in answers if isinstance(answer, Reply)]
        assert bodies == [b"/%d" % n for n in range(150)]


class TestDownloads:
    async def fetch(
        self, exchange: Exchange, answer: bytes, *, max_bytes: int = 1000, path: str = "/a.png"
    ) -> tuple[Fetched | Trouble, bytes, str]:
        heads: list[str] = []
        kept = bytearray()

        async def deliver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            writer.write(answer)
            await writer.drain()

        async def keep(piece: bytes) -> None:
            kept.extend(piece)

        async with serving(deliver) as port:
            fetched = await exchange.download(
                f"http://127.0.0.1:{port}{path}", sink=keep, max_bytes=max_bytes, timeout_s=5
            )
        assert len(heads) == 1
        return fetched, bytes(kept), heads[0]

    async def test_a_file_is_given_to_the_sink_whole_and_no_key_is_sent(self, exchange: Exchange) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n" + b"p" * 1000
        fetched, kept, head = await self.fetch(exchange, answer)
        assert fetched == Fetched(status=200, content_type="image/png", size_bytes=1000, too_large=False)
        assert kept == b"p" * 1000
        assert "key" not in head.lower()
        assert "authorization" not in head.lower()

    @pytest.mark.parametrize("length", [b"Content-Length: 1001\r\n", b""])
    async def test_a_larger_file_than_allowed_is_left(self, exchange: Exchange, length: bytes) -> None:
        fetched, kept, _ = await self.fetch(exchange, b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b"p" * 1001)
        assert isinstance(fetched, Fetched)
        assert fetched.too_large
        assert len(kept) == fetched.size_bytes <= 1000
        assert not (length and kept)

    @pytest.mark.parametrize("status", [b"302 Found\r\nLocation: /b.png", b"403 No", b"404 No", b"206 Part"])
    async def test_no_other_answer_reaches_the_sink(self, exchange: Exchange, status: bytes) -> None:
        fetched, kept, _ = await self.fetch(
            exchange, b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nbody"
        )
        assert isinstance(fetched, Fetched)
        assert fetched.status == int(status[:3])
        assert kept == b""

    async def test_half_a_file_is_trouble(self, exchange: Exchange) -> None:
        fetched, _, _ = await self.fetch(exchange, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        assert isinstance(fetched, Trouble)

    async def test_a_slow_file_is_trouble_and_a_failing_sink_is_heard(self, exchange: Exchange) -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
            await reader.read()

        async def keep(_: bytes) -> None:
            return

        async def full(_: bytes) -> None:
            raise OSError("no space left")

        async with serving(drip) as port:
            url = f"http://127.0.0.1:{port}/a.png"
            slow = await exchange.download(url, sink=keep, max_bytes=1000, timeout_s=0.2)
            with pytest.raises(OSError, match="no space left"):
                await exchange.download(url, sink=full, max_bytes=1000, timeout_s=5)
        assert isinstance(slow, Trouble)
        assert slow.stage is Stage.MAYBE_SENT

    async def test_a_timeout_of_the_sink_is_its_own(self, exchange: Exchange) -> None:
        async def deliver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsome")

        async def stuck(_: bytes) -> None:
            raise TimeoutError("the disk")

        async with serving(deliver) as port:
            with pytest.raises(TimeoutError, match="the disk"):
                await exchange.download(f"http://127.0.0.1:{port}/a", sink=stuck, max_bytes=1000, timeout_s=5)

    @pytest.mark.parametrize(
        "url",
        ["file://{host}/a", "ftp://{host}/a", "http://user:word@{host}/a", "", "//{host}/a", "http:{host}"],
    )
    async def test_no_other_kind_of_url_is_fetched(self, exchange: Exchange, url: str) -> None:
        connections = 0

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1

        async def keep(_: bytes) -> None:
            raise AssertionError("nothing was to be fetched")

        async with serving(count) as port:
            named = url.replace("{host}", f"127.0.0.1:{port}")
            fetched = await exchange.download(named, sink=keep, max_bytes=1000, timeout_s=5)
        assert isinstance(fetched, Trouble)
        assert fetched.stage is Stage.NOT_SENT
        assert connections == 0


def self_signed(folder: Path) -> ssl.SSLContext:
    """Make a server's certificate that nobody has reason to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
