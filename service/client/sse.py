"""Server-sent events from bytes, however these are cut: https://html.spec.whatwg.org/multipage/server-sent-events.html.

Rule: what the stream did not finish with an empty line is never given out.
"""

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
#: An event is thin by contract; more than this in one is no event of ours, and memory stays bounded.
MOST_BYTES = 8 * 1024 * 1024


class TooLong(ValueError):
    """One event of the stream is longer than `MOST_BYTES`."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One event of a stream: its type, its text, and the last id that the stream named."""

    type: str
    data: str
    id: str


class Parser:
    """Takes the chunks of one connection in order; lines may end with LF, CR or CRLF."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._at_start = True
        self._id = ""
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """This function will take the next bytes and give the events that they completed.

        :raises TooLong: if one event exceeds `MOST_BYTES`.
        """
        if not chunk:
            return []
        # The second half of a CRLF that was cut in two.
        text = chunk[1:] if self._after_cr and chunk.startswith(b"\n") else chunk
        self._after_cr = chunk.endswith(b"\r")
        *ended, rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        frames = []
        for piece in ended:
            self._keep(piece)
            frame = self._take_line(b"".join(self._line))
            self._line.clear()
            if frame is not None:
                frames.append(frame)
        self._keep(rest)
        return frames

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MOST_BYTES:
            raise TooLong(f"an event of the stream has more than {MOST_BYTES} bytes")
        if piece:
            self._line.append(piece)

    def _take_line(self, line: bytes) -> Frame | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        if not name:
            # A comment is a sign of life between events, and there may be any number of them.
            self._size -= len(line)
        return None

    def _dispatch(self) -> Frame | None:
        data, type_ = self._data, self._type
        self._data, self._type, self._size = [], "", 0
        return Frame(type=type_ or "message", data="\n".join(data), id=self._id) if data else None
