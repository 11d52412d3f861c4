"""Which addresses a request to a user-given URL may go to.

Rule 1: only what is known to be public is let through: IPv4 outside the special ranges below, IPv6 inside global
unicast and outside its special ranges.
Rule 2: the operator's CIDRs win over every range, and are compared with the address that the packets go to. For an
IPv4-mapped address that is the IPv4 address (the kernel itself connects there), so `127.0.0.0/8` also allows
`::ffff:127.0.0.1`, while `::/0` does not. A translator or a tunnel (NAT64, 6to4, Teredo) is another machine whose
127.0.0.1 or 10.0.0.1 is not ours: there the operator has to name the IPv6 form itself.
Rule 3: NAT64's well-known prefix is how a machine without IPv4 reaches an IPv4 consumer, so it is judged by the
address that it embeds. The other forms that embed one have no such use and are refused whatever they embed.

Ranges: https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The first range that holds an address names the reason, so the narrow ones stand before the wide ones.
_IPV4 = tuple(
    (IPv4Network(cidr), what)
    for cidr, what in (
        ("169.254.169.254/32", "a cloud's metadata service"),
        # Credentials of containers: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
        ("169.254.170.0/24", "a cloud's metadata service"),
        ("100.100.100.200/32", "a cloud's metadata service"),
        ("192.0.0.192/32", "a cloud's metadata service"),
        # Public by its number, yet each virtual machine of Azure meets its host there:
        # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6 = tuple(
    (IPv6Network(cidr), what)
    for cidr, what in (
        ("fd00:ec2::254/128", "a cloud's metadata service"),
        ("fd20:ce::254/128", "a cloud's metadata service"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discarded"),
        ("2001::/32", "Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2001::/23", "reserved for protocols"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private (unique local)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private (site-local)"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def destination(address: Address) -> Address:
    """This function will give the address that packets really go to: of an IPv4-mapped one, the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def within(address: Address, allowed: Sequence[Network]) -> bool:
    """This function will tell whether the operator has named the address: never one with a zone id."""
    if _zoned(address):
        return False
    target = destination(address)
    return any(target in network for network in allowed)


def refusal(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """This function will say what kind of address this is if no request may go there, or None when one may."""
    if _zoned(address):
        return "bound to one network card (a zone id)"
    if within(address, allowed):
        return None
    target = destination(address)
    if isinstance(target, IPv4Address):
        return _named(target, _IPV4)
    if target in _NAT64:
        embedded = _named(IPv4Address(int(target) & 0xFFFF_FFFF), _IPV4)
        return None if embedded is None else f"behind NAT64 (64:ff9b::/96), where it is {embedded}"
    named = _named(target, _IPV6)
    if named is None and target not in _GLOBAL_UNICAST:
        return f"not public (outside {_GLOBAL_UNICAST})"
    return named


def _zoned(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.scope_id is not None


def _named(address: Address, ranges: Sequence[tuple[Network, str]]) -> str | None:
    for network, what in ranges:
        if address in network:
            return f"{what} ({network})"
    return None
