"""How NETCONF messages are cut out of the byte stream of an SSH channel (RFC 6242).

Every session starts with end-of-message framing (section 4.3); when both peers offer base:1.1 it goes on with chunks (section 4.2) after
the hellos. The bytes of both may arrive together, so messages are taken one by one and the framing is switched between two of them.
"""

from __future__ import annotations

END_OF_MESSAGE = b"]]>]]>"
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_END_OF_CHUNKS = b"\n##\n"
_MAX_CHUNK_BYTES = 4_294_967_295
_LONGEST_HEADER = len(b"\n#4294967295\n")


class FramingError(Exception):
    """The peer broke the framing, or sent more than a message may hold: the rest of the stream cannot be understood."""


def frame(message: bytes, chunked: bool) -> bytes:
    """One message as it goes on the wire. Raises FramingError for a message that its framing cannot carry."""
    if chunked:
        if not message:
            raise FramingError("an empty message cannot be sent in chunks")
        return b"\n#%d\n%b%b" % (len(message), message, _END_OF_CHUNKS)
    if END_OF_MESSAGE in message:
        raise FramingError("a message that contains ]]>]]> cannot be sent with base:1.0 framing")
    return message + END_OF_MESSAGE


class Deframer:
    """Collects received bytes and hands out whole messages; `chunked` says which framing the next message has."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.chunked = False
        self.max_message_bytes = max_message_bytes
        self._received = bytearray()
        self._searched = 0
        self._message = bytearray()
        self._chunk_left = 0

    def feed(self, data: bytes) -> None:
        self._received += data

    def take(self) -> bytes | None:
        """The next whole message, or None until more is fed. Raises FramingError, and does so again when called again."""
        return self._take_chunked() if self.chunked else self._take_delimited()

    def _take_delimited(self) -> bytes | None:
        end = self._received.find(END_OF_MESSAGE, self._searched)
        length = end if end >= 0 else len(self._received) - len(END_OF_MESSAGE) + 1
        if length > self.max_message_bytes:
            raise FramingError(f"a message is longer than {self.max_message_bytes} bytes")
        if end < 0:
            self._searched = max(0, length)
            return None
        message = bytes(self._received[:end])
        del self._received[: end + len(END_OF_MESSAGE)]
        self._searched = 0
        return message

    def _take_chunked(self) -> bytes | None:
        while True:
            if self._chunk_left:
                part = self._received[: self._chunk_left]
                if not part:
                    return None
                self._message += part
                self._chunk_left -= len(part)
                del self._received[: len(part)]
            elif self._received.startswith(_END_OF_CHUNKS):
                if not self._message:
                    raise FramingError("a message has no chunk")
                message = bytes(self._message)
                self._message.clear()
                del self._received[: len(_END_OF_CHUNKS)]
                return message
            elif not self._start_chunk():
                return None

    def _start_chunk(self) -> bool:
        """Read a chunk header; False when it has not arrived whole."""
        head = bytes(self._received[:_LONGEST_HEADER])
        if not (head.startswith(b"\n#") or b"\n#".startswith(head)):
            raise FramingError(f"a chunk starts with {head[:4]!r}, not with LF #")
        digits, newline, _ = head[2:].partition(b"\n")
        if not newline and (_END_OF_CHUNKS.startswith(head) or ((digits.isdigit() or not digits) and len(head) < _LONGEST_HEADER)):
            return False
        if not newline or not digits.isdigit() or digits.startswith(b"0") or int(digits) > _MAX_CHUNK_BYTES:
            raise FramingError(f"a chunk has the size {digits!r}; it must be a number from 1 to {_MAX_CHUNK_BYTES}")
        if len(self._message) + int(digits) > self.max_message_bytes:
            raise FramingError(f"a message is longer than {self.max_message_bytes} bytes")
        self._chunk_left = int(digits)
        del self._received[: len(digits) + 3]
        return True
