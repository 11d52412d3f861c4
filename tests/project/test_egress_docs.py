"""What docs/egress.md says is refused is what the code refuses, both ways."""

import re
from ipaddress import IPv6Network, ip_network

from service.domain import addresses
from service.domain.addresses import refusal
from service.domain.targets import LONGEST_URL
from service.egress import dial, kept
from service.egress.client import RESOLVE_S
from service.egress.connection import MOST_HEAD_BYTES
from tests.project.repository import ROOT

TEXT = (ROOT / "docs" / "egress.md").read_text(encoding="utf-8")
TABLE = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))
#: Judged by the IPv4 address inside, as the table says.
BY_WHAT_IS_INSIDE = {IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"), IPv6Network("2000::/3")}


def test_every_range_that_is_refused_stands_in_the_table() -> None:
    ranges = [network for network, _ in (*addresses._IPV4, *addresses._IPV6)]
    assert len(ranges) > 30
    named = {ip_network(text) for text in re.findall(r"`([0-9a-f.:/]+)`", TABLE)}
    wider = [network for network in named if network not in BY_WHAT_IS_INSIDE]
    missing = [
        network
        for network in ranges
        if not any(network.version == other.version and network.subnet_of(other) for other in wider)  # type: ignore[arg-type]
    ]
    assert missing == []


def test_every_range_of_the_table_is_refused() -> None:
    named = {ip_network(text) for text in re.findall(r"`([0-9a-f.:/]+)`", TABLE)} - BY_WHAT_IS_INSIDE
    assert len(named) > 30
    accepted = [network for network in named if refusal(network[0]) is None or refusal(network[-1]) is None]
    assert accepted == []


def test_the_numbers_are_those_of_the_code() -> None:
    for words in (
        f"more than {LONGEST_URL}\ncharacters",
        f"within {RESOLVE_S:g} s",
        f"{dial.CONNECT_S:g} s each",
        f"{kept.KEEP_ALIVE_S:g} s of silence, for {kept.LIFE_S:g} s in all",
        f"may have {MOST_HEAD_BYTES // 1024} KiB",
    ):
        assert words in TEXT
