"""A request goes to a checked address and to nothing else, whatever names, redirects and proxies say."""

from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import pytest

from service.egress import Answered, Egress, Kind, Unreachable, UrlRefused, client, kept
from tests.egress.conftest import MakeEgress
from tests.egress.servers import PRIVATE, PUBLIC, Authority, Names, Seen, answer, saying, serving

HOST = "hook.example"


async def post(egress: Egress, url: str, **more: Any) -> Answered:
    given = {"headers": {"content-type": "application/json"}, "body": b"{}", "timeout_s": 5.0}
    return await egress.post(url, **{**given, "max_answer_bytes": 4096, **more})


@pytest.fixture
async def trap() -> AsyncIterator[Seen]:
    """A server at a private address, which nobody may reach."""
    async with serving(saying(answer(b"secrets")), address=PRIVATE) as seen:
        yield seen
        assert seen.connections == 0


class TestTheServerIsTheOneThatTheUrlNames:
    async def test_tls_is_for_the_host_while_the_connection_goes_to_the_checked_address(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        names = Names(hook_example=[PUBLIC])
        egress = egress_with(names)
        async with serving(saying(answer()), tls=authority.serving(HOST)) as seen:
            came = await post(egress, f"https://{HOST}:{seen.port}/in?a=b", body=b'{"a":1}')
        assert (came.status, came.body) == (200, b"ok")
        assert names.asked == [HOST]
        assert seen.server_names == [HOST]
        assert seen.header("host") == f"{HOST}:{seen.port}"
        head, body = seen.requests[0]
        assert head.startswith("POST /in?a=b HTTP/1.1\r\n")
        assert body == b'{"a":1}'
        assert seen.header("content-type") == "application/json"

    async def test_a_certificate_for_another_name_is_refused_before_anything_is_sent(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        egress = egress_with(Names(hook_example=[PUBLIC]))
        async with serving(saying(answer()), tls=authority.serving("other.example", PUBLIC)) as seen:
            with pytest.raises(Unreachable) as caught:
                await post(egress, f"https://{HOST}:{seen.port}/")
        assert caught.value.kind is Kind.TLS
        assert "certificate" in caught.value.message
        assert seen.requests == []

    async def test_a_certificate_that_nobody_trusts_is_refused(
        self, egress_with: MakeEgress, tmp_path: Any
    ) -> None:
        egress = egress_with(Names(hook_example=[PUBLIC]))
        async with serving(saying(answer()), tls=Authority(tmp_path).serving(HOST)) as seen:
            with pytest.raises(Unreachable) as caught:
                await post(egress, f"https://{HOST}:{seen.port}/")
        assert caught.value.kind is Kind.TLS
        assert seen.requests == []

    async def test_an_address_in_the_url_needs_a_certificate_for_it(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        egress = egress_with()
        async with serving(saying(answer()), tls=authority.serving(PUBLIC)) as right:
            assert (await post(egress, f"https://{PUBLIC}:{right.port}/")).status == 200
        async with serving(saying(answer()), tls=authority.serving(HOST)) as wrong:
            with pytest.raises(Unreachable) as caught:
                await post(egress, f"https://{PUBLIC}:{wrong.port}/")
        assert caught.value.kind is Kind.TLS
        assert right.header("host") == f"{PUBLIC}:{right.port}"

    async def test_an_international_name_and_a_final_dot_are_asked_for_in_ascii_without_it(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        names = Names(**{"xn--bcher-kva_example": [PUBLIC]})
        egress = egress_with(names)
        tls = authority.serving("xn--bcher-kva.example")
        async with serving(saying(answer()), tls=tls) as seen:
            await post(egress, f"https://Bücher.example.:{seen.port}/")
        assert names.asked == ["xn--bcher-kva.example"]
        assert seen.server_names == ["xn--bcher-kva.example"]
        assert seen.header("host") == f"xn--bcher-kva.example:{seen.port}"


class TestANameThatChangesItsAnswer:
    async def test_between_the_check_and_the_post_is_refused(
        self, egress_with: MakeEgress, trap: Seen
    ) -> None:
        names = Names(hook_example=[PUBLIC, PRIVATE])
        egress = egress_with(names)
        url = f"http://{HOST}:{trap.port}/"
        await egress.check(url)
        with pytest.raises(UrlRefused) as caught:
            await post(egress, url)
        assert "loopback" in caught.value.reason
        assert PRIVATE not in caught.value.reason
        assert len(names.asked) == 2

    async def test_between_two_posts_is_refused(self, egress_with: MakeEgress, trap: Seen) -> None:
        names = Names(hook_example=[PUBLIC, PRIVATE])
        egress = egress_with(names)
        async with serving(saying(answer(), close=True), port=trap.port) as seen:
            url = f"http://{HOST}:{trap.port}/"
            assert (await post(egress, url)).status == 200
            with pytest.raises(UrlRefused):
                await post(egress, url)
        assert len(seen.requests) == 1

    async def test_right_after_the_check_of_a_connection_gains_nothing_since_it_is_asked_once(
        self, egress_with: MakeEgress, trap: Seen
    ) -> None:
        names = Names(hook_example=[PUBLIC, PRIVATE])
        egress = egress_with(names)
        async with serving(saying(answer()), port=trap.port) as seen:
            assert (await post(egress, f"http://{HOST}:{trap.port}/")).status == 200
        assert (names.asked, seen.connections) == ([HOST], 1)

    async def test_while_a_connection_is_kept_gains_nothing_since_it_leads_where_it_led(
        self, egress_with: MakeEgress, trap: Seen
    ) -> None:
        names = Names(hook_example=[PUBLIC, PRIVATE])
        egress = egress_with(names)
        async with serving(saying(answer()), port=trap.port) as seen:
            for _ in range(3):
                assert (await post(egress, f"http://{HOST}:{trap.port}/")).body == b"ok"
        assert (names.asked, seen.connections, len(seen.requests)) == ([HOST], 1, 3)

    async def test_is_met_again_when_a_connection_has_had_its_time(
        self, egress_with: MakeEgress, trap: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        egress = egress_with(Names(hook_example=[PUBLIC, PRIVATE]))
        async with serving(saying(answer()), port=trap.port) as seen:
            assert (await post(egress, f"http://{HOST}:{trap.port}/")).status == 200
            monkeypatch.setattr(kept, "LIFE_S", 0.0)
            with pytest.raises(UrlRefused):
                await post(egress, f"http://{HOST}:{trap.port}/")
        assert len(seen.requests) == 1

    async def test_is_looked_up_anew_when_a_kept_connection_turns_out_to_be_closed(
        self, egress_with: MakeEgress, trap: Seen
    ) -> None:
        async def once(reader: Any, writer: Any) -> None:
            await saying(answer(), close=True)(reader, writer)
            await reader.readuntil(b"\r\n\r\n")  # hangs up with the second request in hand

        egress = egress_with(Names(hook_example=[PUBLIC, PRIVATE]))
        async with serving(once, port=trap.port) as seen:
            assert (await post(egress, f"http://{HOST}:{trap.port}/")).status == 200
            with pytest.raises(UrlRefused):
                await post(egress, f"http://{HOST}:{trap.port}/")
        assert seen.connections == 1

    @pytest.mark.parametrize("answers", [(PUBLIC, PRIVATE), (PRIVATE, PUBLIC), (PUBLIC, "fd00:ec2::254")])
    async def test_with_one_refused_address_among_its_addresses_is_refused_as_a_whole(
        self, egress_with: MakeEgress, trap: Seen, answers: tuple[str, ...]
    ) -> None:
        egress = egress_with(Names(hook_example=[answers]))
        async with serving(saying(answer()), port=trap.port) as seen:
            with pytest.raises(UrlRefused):
                await egress.check(f"http://{HOST}:{trap.port}/")
            with pytest.raises(UrlRefused):
                await post(egress, f"http://{HOST}:{trap.port}/")
        assert seen.connections == 0


class TestNothingLeadsElsewhere:
    @pytest.mark.parametrize(
        "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
    )
    async def test_a_redirect_is_an_answer_and_is_not_followed(
        self, egress_with: MakeEgress, trap: Seen, status: str
    ) -> None:
        there = f"Location: http://{PRIVATE}:{trap.port}/latest/meta-data"
        async with serving(saying(answer(status=status, headers=[there]))) as seen:
            came = await post(egress_with(), f"http://{PUBLIC}:{seen.port}/")
        assert came.status == int(status[:3])
        assert len(seen.requests) == 1

    @pytest.mark.parametrize("header", ["Refresh: 0; url=", "Content-Location: ", "Alt-Svc: h2=", "Link: "])
    async def test_no_header_leads_the_client_on(
        self, egress_with: MakeEgress, trap: Seen, header: str
    ) -> None:
        there = f"{header}http://{PRIVATE}:{trap.port}/"
        async with serving(saying(answer(headers=[there]))) as seen:
            egress = egress_with()
            for _ in range(2):
                assert (await post(egress, f"http://{PUBLIC}:{seen.port}/")).status == 200
        assert seen.connections == 1

    @pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
    async def test_a_proxy_in_the_environment_is_ignored(
        self,
        egress_with: MakeEgress,
        authority: Authority,
        trap: Seen,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        monkeypatch.setenv(name, f"http://{PRIVATE}:{trap.port}")
        egress = egress_with(Names(hook_example=[PUBLIC]))
        async with serving(saying(answer())) as plain:
            assert (await post(egress, f"http://{HOST}:{plain.port}/")).status == 200
        async with serving(saying(answer()), tls=authority.serving(HOST)) as secure:
            assert (await post(egress, f"https://{HOST}:{secure.port}/")).status == 200

    async def test_credentials_of_the_machine_are_not_sent(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        (tmp_path / "netrc").write_text(f"machine {HOST} login us password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with serving(saying(answer())) as seen:
            await post(egress_with(Names(hook_example=[PUBLIC])), f"http://{HOST}:{seen.port}/")
        assert seen.header("authorization") is None

    async def test_a_cookie_is_not_kept(self, egress_with: MakeEgress) -> None:
        egress = egress_with()
        async with serving(saying(answer(headers=["Set-Cookie: a=b; Path=/"]))) as seen:
            for _ in range(2):
                await post(egress, f"http://{PUBLIC}:{seen.port}/")
        assert len(seen.requests) == 2
        assert seen.header("cookie") is None

    async def test_two_hosts_at_one_address_do_not_share_a_connection(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        egress = egress_with(Names(hook_example=[PUBLIC], other_example=[PUBLIC]))
        async with serving(saying(answer()), tls=authority.serving(HOST)) as seen:
            await post(egress, f"https://{HOST}:{seen.port}/")
            with pytest.raises(Unreachable) as caught:
                await post(egress, f"https://other.example:{seen.port}/")
        assert caught.value.kind is Kind.TLS
        assert len(seen.requests) == 1


class TestJudgingAUrl:
    async def test_https_to_a_public_address_is_fine(self, egress_with: MakeEgress) -> None:
        egress = egress_with(
            Names(hook_example=[["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]])
        )
        await egress.check(f"https://{HOST}/in")
        await egress.check("https://93.184.215.14/in")

    @pytest.mark.parametrize("addresses", ["93.184.215.14", [PUBLIC, "93.184.215.14"]])
    async def test_http_is_refused_unless_the_operator_named_every_address(
        self, egress_with: MakeEgress, addresses: Any
    ) -> None:
        egress = egress_with(Names(hook_example=[addresses]))
        for judge in (egress.check(f"http://{HOST}/in"), post(egress, f"http://{HOST}/in")):
            with pytest.raises(UrlRefused) as caught:
                await judge
            assert "must begin with https://" in caught.value.reason

    async def test_http_is_fine_where_the_operator_named_every_address(self, egress_with: MakeEgress) -> None:
        egress = egress_with(
            Names(hook_example=[["10.0.0.1", "::ffff:10.0.0.2"]]), allowed=[ip_network("10.0.0.0/8")]
        )
        await egress.check(f"http://{HOST}/in")
        await egress.check("http://10.1.2.3:8080/in")
        await egress.check(f"https://{HOST}/in")

    async def test_http_is_refused_without_a_look_up_where_nothing_is_allowed(
        self, egress_with: MakeEgress
    ) -> None:
        names = Names(hook_example=["10.0.0.1"])
        with pytest.raises(UrlRefused):
            await egress_with(names, allowed=()).check(f"http://{HOST}/in")
        assert names.asked == []

    @pytest.mark.parametrize(
        "host",
        [
            "10.0.0.1",
            "127.0.0.2",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "[::1]",
            "[::]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[ff02::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a00:1::1]",
            "[2001::1]",
            "127.1",
            "0x7f000001",
            "017700000001",
            "2130706433",
            "[fe80::1%25eth0]",
            "a b",
        ],
    )
    async def test_a_private_address_in_a_url_is_refused_in_every_form_without_a_look_up(
        self, egress_with: MakeEgress, host: str
    ) -> None:
        names = Names()
        egress = egress_with(names)
        for judge in (egress.check(f"https://{host}/in"), post(egress, f"https://{host}/in")):
            with pytest.raises(UrlRefused):
                await judge
        assert names.asked == []

    @pytest.mark.parametrize("trouble", [OSError("no such name"), [], "nonsense"])
    async def test_a_name_without_an_address_is_refused_at_creation_and_passing_trouble_later(
        self, egress_with: MakeEgress, trouble: Any
    ) -> None:
        egress = egress_with(Names(hook_example=[trouble]))
        with pytest.raises(UrlRefused) as refused:
            await egress.check(f"https://{HOST}/in")
        assert "could not be resolved" in refused.value.reason
        with pytest.raises(Unreachable) as unreachable:
            await post(egress, f"https://{HOST}/in")
        assert unreachable.value.kind is Kind.DNS

    async def test_a_good_name_is_not_looked_up_again_at_once_but_a_request_looks_for_itself(
        self, egress_with: MakeEgress, trap: Seen
    ) -> None:
        names = Names(hook_example=[PUBLIC, PRIVATE])
        egress = egress_with(names)
        for path in ("a", "b", "c"):
            await egress.check(f"http://{HOST}:{trap.port}/{path}")
        assert names.asked == [HOST]
        with pytest.raises(UrlRefused):
            await post(egress, f"http://{HOST}:{trap.port}/a")

    async def test_a_good_name_is_looked_up_again_after_a_while(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "JUDGED_S", 0.0)
        egress = egress_with(Names(hook_example=[PUBLIC, PRIVATE]))
        await egress.check(f"https://{HOST}/")
        with pytest.raises(UrlRefused):
            await egress.check(f"https://{HOST}/")

    async def test_a_name_that_was_good_over_https_may_still_be_refused_over_http(
        self, egress_with: MakeEgress
    ) -> None:
        egress = egress_with(Names(hook_example=["93.184.215.14"]))
        await egress.check(f"https://{HOST}/")
        with pytest.raises(UrlRefused):
            await egress.check(f"http://{HOST}/")

    async def test_this_machine_by_name_is_refused_by_the_systems_resolver(
        self, egress_with: MakeEgress
    ) -> None:
        with pytest.raises(UrlRefused) as caught:
            await egress_with(allowed=()).check("https://localhost/in")
        assert "loopback" in caught.value.reason
