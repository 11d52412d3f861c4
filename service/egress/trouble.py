"""What can go wrong on the way to a user's server; a URL that may not be used at all is `UrlRefused` instead."""

from enum import StrEnum


class Kind(StrEnum):
    """How far a request came."""

    #: The name has no address now.
    DNS = "dns"
    #: No TCP connection to any of its addresses.
    CONNECT = "connect"
    #: No TLS, or a certificate that is not valid for the host.
    TLS = "tls"
    #: The time for the whole request was over, wherever it was then.
    TIMEOUT = "timeout"
    #: The connection ended before the answer did.
    RESET = "reset"
    #: The head of the answer is larger than any should be.
    TOO_LARGE = "too_large"
    #: What came is not HTTP.
    NOT_HTTP = "not_http"


class Unreachable(Exception):
    """There is no complete answer; a later request may get one. `message` is a sentence without the URL."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
