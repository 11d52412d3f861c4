"""What a caller's wish can end in: these errors are the flows' own, the edge turns them into statuses."""


class FlowError(Exception):
    """Something a caller asked for cannot be done; the text says why and is safe to show."""


class NotFound(FlowError):
    """There is no such thing, or it is another tenant's."""


class Conflict(FlowError):
    """The thing is not in a state for this."""


class Refused(FlowError):
    """A field of the request is wrong."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class CursorExpired(FlowError):
    """Events behind the cursor are no longer kept; `oldest` is the oldest position from which nothing is missing."""

    def __init__(self, oldest: int) -> None:
        super().__init__("events behind this cursor are no longer kept")
        self.oldest = oldest
