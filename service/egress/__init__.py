"""Requests to URLs that users gave: the only way out to them.

Every address that a name leads to is checked (`domain/addresses.py`), one refused address refuses all, and the
connection goes to a checked address by its number, so that no second look-up can lead elsewhere. See docs/egress.md.

Rule: a kept connection is used again without another look-up. That cannot be exploited by a name that changes its
answer, because the connection leads where it led when it was checked; a new connection is checked anew, and none is
used for longer than a minute.
"""

from service.domain.targets import UrlRefused
from service.egress.client import Answered, Egress
from service.egress.trouble import Kind, Unreachable

__all__ = ["Answered", "Egress", "Kind", "Unreachable", "UrlRefused"]
