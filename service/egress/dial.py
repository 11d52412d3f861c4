"""Connect to one of the checked addresses, by its number, and prove there that it is the host of the URL."""

import asyncio
import socket
import ssl
from collections.abc import Sequence

from service.domain.addresses import Address
from service.domain.targets import Target
from service.egress.connection import Connection
from service.egress.trouble import Kind, Unreachable

#: For each address: then the next one is tried, within the time of the whole request.
CONNECT_S = 5.0
_MOST_ADDRESSES = 4


async def dial(target: Target, addresses: Sequence[Address], *, tls: ssl.SSLContext) -> Connection:
    """This function will connect to the first of the addresses that takes a connection.

    :raises Unreachable: if none does, or if TLS or the host's certificate fails.
    """
    for address in addresses[:_MOST_ADDRESSES]:
        raw = await _connected(address, target.port)
        if raw is not None:
            return await _secured(raw, target, tls)
    raise Unreachable(Kind.CONNECT, "No connection could be made.")


async def _connected(address: Address, port: int) -> socket.socket | None:
    family, place = (
        (socket.AF_INET, (str(address), port))
        if address.version == 4
        else (socket.AF_INET6, (str(address), port, 0, 0))
    )
    try:
        raw = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # a machine without IPv6, or without free file descriptors
        return None
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(raw, place)
    except OSError:  # a TimeoutError too
        raw.close()
        return None
    except BaseException:
        raw.close()
        raise
    return raw


async def _secured(raw: socket.socket, target: Target, tls: ssl.SSLContext) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        if target.secure:
            _, connection = await loop.create_connection(
                Connection, sock=raw, ssl=tls, server_hostname=target.host
            )
        else:
            _, connection = await loop.create_connection(Connection, sock=raw)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(Kind.TLS, f"Its certificate is not valid: {error.verify_message}") from error
    except (ssl.SSLError, OSError) as error:
        raise Unreachable(Kind.TLS, "No secure connection could be made.") from error
    return connection
