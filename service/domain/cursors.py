"""Cursors: opaque to callers, checked when they come back; each kind of list has its own."""

import base64
import binascii
import re
from collections.abc import Callable

_VALUES = {
    #: Behind this job, newest first.
    "jobs": re.compile(r"job_[0-9a-z]{1,64}"),
    #: Behind this line of a job's history.
    "history": re.compile(r"0|[1-9][0-9]{0,17}"),
    "callbacks": re.compile(r"cb_[0-9a-z]{1,64}"),
    #: Behind this `seq`.
    "events": re.compile(r"0|[1-9][0-9]{0,17}"),
    #: Behind this endpoint or delivery, newest first.
    "endpoints": re.compile(r"ep_[0-9a-z]{1,64}"),
    "deliveries": re.compile(r"dlv_[0-9a-z]{1,64}"),
}


def cursor(kind: str, value: str | int) -> str:
    """This function will make the cursor that stands behind one row of a list."""
    return base64.urlsafe_b64encode(f"{kind}:{value}".encode()).rstrip(b"=").decode()


def reader(kind: str) -> Callable[[str], str]:
    """This function will give the reader of one kind's cursors: it returns the value, or raises ValueError."""

    def read(text: str) -> str:
        try:
            plain = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        except (ValueError, binascii.Error):
            plain = ""
        named, _, value = plain.partition(":")
        # Made anew, because base64 reads the same from more than one text.
        if named != kind or not _VALUES[kind].fullmatch(value) or cursor(kind, value) != text:
            raise ValueError("is not a cursor of this list")
        return value

    return read
