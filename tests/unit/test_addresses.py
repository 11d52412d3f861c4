"""Which addresses a request may go to: every special range by its first and last address, and what embeds one."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.domain.addresses import Network, destination, refusal, within

MAPPED = int(IPv6Address("::ffff:0:0"))
NAT64 = int(IPv6Address("64:ff9b::"))

REFUSED = [
    ("0.0.0.0", "unspecified"),
    ("0.0.0.1", "this network"),
    ("0.255.255.255", "this network"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.0", "CGNAT"),
    ("100.127.255.255", "CGNAT"),
    ("100.100.100.200", "metadata"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("168.63.129.16", "metadata"),
    ("169.254.0.0", "link-local"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("169.254.255.255", "link-local"),
    ("172.16.0.0", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.0", "protocols"),
    ("192.0.0.170", "protocols"),
    ("192.0.0.192", "metadata"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4"),
    ("192.168.0.0", "private"),
    ("192.168.255.255", "private"),
    ("198.18.0.0", "benchmarking"),
    ("198.19.255.255", "benchmarking"),
    ("198.51.100.7", "documentation"),
    ("203.0.113.7", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.0", "reserved"),
    ("255.255.255.254", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::7f00:1", "IPv4-compatible"),
    ("::808:808", "IPv4-compatible"),
    ("::ffff:0:7f00:1", "IPv4-translated"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:10.1.2.3", "private"),
    ("64:ff9b::7f00:1", "behind NAT64"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b::a00:1", "private"),
    ("64:ff9b:1::808:808", "local NAT64"),
    ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "local NAT64"),
    ("64:ff9b:0:1::808:808", "outside"),
    ("100::1", "discarded"),
    ("2001::1", "Teredo"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
    ("2001:2::1", "protocols"),
    ("2001:20::1", "protocols"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::1", "6to4"),
    ("2002:808:808::1", "6to4"),
    ("3fff::1", "documentation"),
    ("4000::1", "outside"),
    ("5f00::1", "outside"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private"),
    ("fe80::1", "link-local"),
    ("febf::1", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("fe80::1%eth0", "zone id"),
    ("2606:4700::1111%1", "zone id"),
    ("::ffff:8.8.8.8%1", "zone id"),
]

PUBLIC = [
    "1.0.0.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "3ffe:ffff::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize(("address", "why"), REFUSED)
def test_an_address_that_is_not_public_is_refused_and_named(address: str, why: str) -> None:
    reason = refusal(ip_address(address))
    assert reason is not None
    assert why in reason


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_let_through(address: str) -> None:
    assert refusal(ip_address(address)) is None


@pytest.mark.parametrize("address", [address for address, why in REFUSED if why != "zone id"])
def test_what_the_operator_names_is_let_through(address: str) -> None:
    packets_go_to = destination(ip_address(address))
    assert refusal(ip_address(address), [ip_network(packets_go_to)]) is None
    assert within(ip_address(address), [ip_network(packets_go_to)])


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1111%1"])
def test_a_zone_id_is_refused_even_if_everything_is_allowed(address: str) -> None:
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert refusal(ip_address(address), everything) is not None
    assert not within(ip_address(address), everything)


@pytest.mark.parametrize(
    ("address", "allowed", "let_through"),
    [
        ("::ffff:127.0.0.1", "127.0.0.0/8", True),
        ("::ffff:127.0.0.1", "::/0", False),
        ("::ffff:127.0.0.1", "::ffff:0:0/96", False),
        ("64:ff9b::7f00:1", "127.0.0.0/8", False),
        ("64:ff9b::7f00:1", "64:ff9b::/96", True),
        ("64:ff9b:1::a00:1", "10.0.0.0/8", False),
        ("64:ff9b:1::a00:1", "64:ff9b:1::/48", True),
        ("2002:a00:1::1", "10.0.0.0/8", False),
        ("2002:a00:1::1", "2002:a00::/24", True),
        ("2001:0:a00:1::1", "10.0.0.0/8", False),
        ("::a00:1", "10.0.0.0/8", False),
        ("10.0.0.1", "::/0", False),
        ("fc00::1", "0.0.0.0/0", False),
        ("169.254.169.254", "169.254.0.0/16", True),
        ("10.1.0.1", "10.0.0.0/16", False),
    ],
)
def test_an_allowed_range_is_compared_with_where_the_packets_go(
    address: str, allowed: str, let_through: bool
) -> None:
    networks = [ip_network(allowed)]
    assert (refusal(ip_address(address), networks) is None) is let_through
    assert within(ip_address(address), networks) is let_through


def test_a_public_address_is_not_one_that_the_operator_named() -> None:
    assert not within(ip_address("8.8.8.8"), [])
    assert not within(ip_address("8.8.8.8"), [ip_network("10.0.0.0/8")])


v4_addresses = st.one_of(
    st.ip_addresses(v=4),
    st.sampled_from([IPv4Address(address) for address, _ in REFUSED if ":" not in address]),
)
v6_addresses = st.ip_addresses(v=6)


@st.composite
def networks_v4(draw: st.DrawFn) -> IPv4Network:
    return IPv4Network((int(draw(v4_addresses)), draw(st.integers(0, 32))), strict=False)


@st.composite
def networks_v6(draw: st.DrawFn) -> IPv6Network:
    return IPv6Network((int(draw(v6_addresses)), draw(st.integers(0, 128))), strict=False)


@given(v4_addresses | v6_addresses)
def test_nothing_is_let_through_that_the_standard_library_takes_for_special(
    address: IPv4Address | IPv6Address,
) -> None:
    if refusal(address) is not None:
        return
    packets_go_to = destination(address)
    assert packets_go_to.is_global
    assert not packets_go_to.is_multicast
    assert not packets_go_to.is_private
    assert not packets_go_to.is_link_local


@given(v4_addresses, st.lists(networks_v4() | networks_v6(), max_size=3))
def test_a_mapped_address_is_judged_as_the_one_it_maps(address: IPv4Address, allowed: list[Network]) -> None:
    mapped = IPv6Address(MAPPED + int(address))
    assert refusal(mapped, allowed) == refusal(address, allowed)
    assert within(mapped, allowed) == within(address, allowed)
    assert destination(mapped) == address


@given(v4_addresses, st.lists(networks_v4(), max_size=3))
def test_no_ipv4_range_opens_a_translator_or_tunnel(address: IPv4Address, allowed: list[Network]) -> None:
    embedded = int(address)
    behind_nat64 = IPv6Address(NAT64 + embedded)
    assert (refusal(behind_nat64, allowed) is None) == (refusal(address) is None)
    for form in (
        IPv6Address(embedded),
        IPv6Address((0x2002 << 112) + (embedded << 80)),
        IPv6Address((0x2001_0000 << 96) + (embedded ^ 0xFFFF_FFFF)),
        IPv6Address((0x0064_FF9B_0001 << 80) + embedded),
    ):
        assert refusal(form, allowed) is not None


@given(networks_v4() | networks_v6(), st.data())
def test_everything_within_an_allowed_range_is_let_through(network: Network, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    address = network[offset]
    assume(destination(address) == address)
    assert refusal(address, [network]) is None
    assert within(address, [network])


@given(v4_addresses | v6_addresses, st.lists(networks_v4() | networks_v6(), max_size=3))
def test_what_the_operator_did_not_name_is_judged_as_without_him(
    address: IPv4Address | IPv6Address, allowed: list[Network]
) -> None:
    if not within(address, allowed):
        assert refusal(address, allowed) == refusal(address)
