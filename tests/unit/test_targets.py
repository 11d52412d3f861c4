"""How a user-given URL is read: one way, or not at all."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from service.domain.targets import LONGEST_URL, Target, UrlRefused, target_of


def refused(url: str) -> str:
    with pytest.raises(UrlRefused) as caught:
        target_of(url)
    assert caught.value.reason.startswith("must ")
    return caught.value.reason


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "path"),
    [
        ("https://example.com", "example.com", 443, "example.com", "/"),
        ("HTTPS://Example.COM/Hook", "example.com", 443, "example.com", "/Hook"),
        ("https://example.com:443/a", "example.com", 443, "example.com", "/a"),
        ("https://example.com:80/a", "example.com", 80, "example.com:80", "/a"),
        ("https://example.com.:8443/a?b=c&d", "example.com", 8443, "example.com:8443", "/a?b=c&d"),
        ("https://example.com?b=/@:", "example.com", 443, "example.com", "/?b=/@:"),
        ("https://my_host.example/a%2Fb/../c", "my_host.example", 443, "my_host.example", "/a%2Fb/../c"),
        ('https://example.com/{"a"}|', "example.com", 443, "example.com", "/%7B%22a%22%7D|"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "xn--bcher-kva.example", "/"),
        ("https://faß.example/", "xn--fa-hia.example", 443, "xn--fa-hia.example", "/"),
        ("https://ＥＸＡＭＰＬＥ。com/", "example.com", 443, "example.com", "/"),
        ("https://8.8.8.8/x", "8.8.8.8", 443, "8.8.8.8", "/x"),
        ("https://[2606:4700:0::1111]:8443/x", "2606:4700::1111", 8443, "[2606:4700::1111]:8443", "/x"),
        ("http://localhost:9000/x", "localhost", 9000, "localhost:9000", "/x"),
        ("http://localhost:80/x", "localhost", 80, "localhost", "/x"),
    ],
)
def test_a_plain_url_is_read(url: str, host: str, port: int, authority: str, path: str) -> None:
    target = target_of(url)
    assert (target.host, target.port, target.authority, target.path) == (host, port, authority, path)
    assert target.secure is url.lower().startswith("https:")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://8.8.8.8", IPv4Address("8.8.8.8")),
        ("https://[::1]", IPv6Address("::1")),
        ("https://[::ffff:127.0.0.1]", IPv6Address("::ffff:7f00:1")),
        ("https://[64:ff9b::127.0.0.1]", IPv6Address("64:ff9b::7f00:1")),
        ("https://example.com", None),
    ],
)
def test_an_address_in_a_url_is_known_to_be_one(url: str, address: IPv4Address | IPv6Address | None) -> None:
    assert target_of(url).address == address


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0x7F.0.0.1",
        "0X7f000001",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "127.0.0.256",
        "127.0.0.1.1",
        "0",
        "0x",
        "00.0.0.0",
        "10.0.0.0x1",
        "example.0x7f",
        "example.1",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "127。0。0。1",
    ],
)
def test_an_ipv4_address_in_another_spelling_is_refused(host: str) -> None:
    refused(f"https://{host}/")
    refused(f"http://{host}:8080/")


@given(st.ip_addresses(v=4))
def test_no_spelling_of_an_address_but_the_plain_one_is_read(address: IPv4Address) -> None:
    number = int(address)
    first, second, third, fourth = address.packed
    spellings = {
        str(number),
        hex(number),
        f"0{number:o}",
        f"{first}.{number & 0xFFFFFF}",
        f"{first}.{second}.{number & 0xFFFF}",
        f"{first:#x}.{second}.{third}.{fourth}",
        f"{first}.{second}.{third}.0{fourth:o}",
        f"{first}.{second}.{third}.{fourth:#x}",
        f"0{first}.{second}.{third}.{fourth}",
    }
    for spelling in spellings:
        assert "four decimal numbers" in refused(f"https://{spelling}/")
    assert target_of(f"https://{address}/").address == address


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "full URL"),
        ("example.com", "full URL"),
        ("//example.com", "full URL"),
        ("https:example.com", "full URL"),
        ("https:/example.com", "full URL"),
        ("javascript:alert(1)", "full URL"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("gopher://example.com/", "https://"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://:443/", "host"),
        ("https://./", "host"),
        ("https://../", "host"),
        ("https://a..b/", "host"),
        ("https://.example.com/", "host"),
        ("https://example.com../", "host"),
        ("https://-a.example/", "host"),
        ("https://a-.example/", "host"),
        ("https://ex%61mple.com/", "host"),
        ("https://%31%32%37.0.0.1/", "four decimal numbers"),
        ("https://a,b/", "host"),
        ("https://a*b/", "host"),
        ("https://" + "a" * 64 + ".example/", "host"),
        ("https://" + "a." * 127 + "aa/", "host"),
        ("https://a\u200bb.example/", "host"),
        ("https://\ud800.example/", "host"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://127.0.0.1@example.com/", "user name"),
        ("https://example.com@127.0.0.1/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com:/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:-1/", "port"),
        ("https://example.com:+80/", "port"),
        ("https://example.com:8_0/", "port"),
        ("https://example.com:８０/", "port"),
        ("https://example.com:0x50/", "port"),
        ("https://example.com:80:80/", "port"),
        ("https://::1/", "host"),
        ("https://[::1/", "host"),
        ("https://::1]/", "host"),
        ("https://[::1]x/", "host"),
        ("https://[[::1]]/", "host"),
        ("https://[]/", "IPv6"),
        ("https://[127.0.0.1]/", "IPv6"),
        ("https://[v1.x]/", "IPv6"),
        ("https://[::1::]/", "IPv6"),
        ("https://[fe80::1%eth0]/", "zone"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[::1%1]/", "zone"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com#", "fragment"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https:\\\\example.com/", "backslash"),
        ("https://example.com/a\\b", "backslash"),
        (" https://example.com/", "blank"),
        ("https://example.com/ ", "blank"),
        ("https://example.com/a b", "blank"),
        ("https://exam\tple.com/", "control"),
        ("https://example.com/\r\nX-Evil: 1", "control"),
        ("https://example.com/\x00", "control"),
        ("https://example.com/\x7f", "control"),
        ("https://example.com/\x85", "control"),
        ("https://exa\u3000mple.com/", "blank"),
        ("https://example.com/ü", "escape"),
        ("https://example.com/?q=ü", "escape"),
        ("https://example.com/" + "a" * LONGEST_URL, "longer"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(url: str, word: str) -> None:
    assert word in refused(url)


def test_a_url_of_the_greatest_length_is_read() -> None:
    start = "https://example.com/"
    assert target_of(start + "a" * (LONGEST_URL - len(start))).host == "example.com"


def test_a_refusal_repeats_nothing_of_the_url() -> None:
    assert "secret" not in refused("https://user:secret@example.com/")


PRINTED = st.text(st.sampled_from("abc.:@/\\?#[]%0x17 \t\r\nü。１%-_&=~\x00"), max_size=30)


def _read(url: str) -> Target | None:
    try:
        return target_of(url)
    except UrlRefused:
        return None


@given(st.one_of(st.text(), PRINTED, PRINTED.map("https://".__add__), PRINTED.map("http://h".__add__)))
def test_whatever_comes_is_refused_or_safe_to_put_into_a_request(url: str) -> None:
    target = _read(url)
    if target is not None:
        assert re.fullmatch(r"/[!-~]*", target.path)
        assert re.fullmatch(r"[a-z0-9._:\[\]-]+", target.authority)
        assert re.fullmatch(r"[a-z0-9._:-]+", target.host)
        assert 1 <= target.port <= 65_535
        if target.address is None:
            assert re.search(r"[a-z_-][^.]*$", target.host)


@given(PRINTED.map("https://".__add__))
def test_other_programs_see_the_same_host_in_what_is_let_through(url: str) -> None:
    target = _read(url)
    if target is not None and url.isascii():
        for host, port in (
            (urlsplit(url).hostname, urlsplit(url).port or 443),
            (yarl.URL(url).host, yarl.URL(url).port),
        ):
            assert host is not None
            if target.address is not None:
                assert ip_address(host) == target.address
            else:
                assert host.lower().removesuffix(".") == target.host
            assert port == target.port
