"""Reading an answer: its body within limits of size and time, unpacked, and the JSON in it.

What ended before its end is an httpx.TransportError, whoever noticed it; what cannot be meant is a BadAnswer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpx

from exporter.appstore.documents import NOT_APPLE, loads
from exporter.appstore.jsonapi import printable
from exporter.errors import BadAnswer

__all__ = [
    "NOT_APPLE",
    "Answer",
    "Deadline",
    "Received",
    "parse",
    "read_body",
    "read_error_body",
]


_ERROR_BODY = 64 * 1024
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """A 200: its bytes, when they had arrived (seconds since the epoch), and the JSON object they hold.

    Every number in `document` is a float, a huge one an infinity.
    """

    body: bytes
    received_at: float
    document: Mapping[str, object]


@dataclass(frozen=True)
class Received:
    """The head of an answer, its body, and when the body had arrived (seconds since the epoch)."""

    response: httpx.Response
    body: bytes
    received_at: float


class Deadline:
    """The end of the time for one call: `seconds` from now, by a clock that only goes forward."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self.seconds = seconds
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, less than 0 when the time is over."""
        return self._end - self._monotonic()

    def check(self) -> None:
        """Raise httpx.ReadTimeout when the time is over."""
        if self.left() < 0:
            raise httpx.ReadTimeout(f"not at its end after {self.seconds:g} s")


def read_body(response: httpx.Response, limit: int, deadline: Deadline) -> bytes:
    """Return the decompressed body; `limit` counts the bytes that arrive and those that they become.

    Raises:
        BadAnswer: it is larger than allowed, or in an encoding that was not asked for.
        httpx.TransportError: it is damaged, or was not complete in time.
    """
    body = bytearray()
    _collect(response, body, limit, deadline)
    return bytes(body)


def read_error_body(response: httpx.Response, deadline: Deadline) -> bytes:
    """Return what can be had of an error's body, up to 64 KiB: the status alone says enough to go on."""
    body = bytearray()
    with suppress(httpx.TransportError, BadAnswer):
        _collect(response, body, _ERROR_BODY, deadline)
    return bytes(body[:_ERROR_BODY])


def parse(received: Received, types: Collection[str]) -> Answer:
    """Return the JSON object of a 200; its content type may be one of `types`, or missing.

    Raises:
        BadAnswer: it is something else.
        httpx.TransportError: it was cut off.
    """
    content_type = received.response.headers.get("Content-Type", "")
    if content_type and content_type.partition(";")[0].strip().lower() not in types:
        raise _not_json(received)
    try:
        document = loads(received.body)
    except ValueError:
        raise _not_json(received) from None
    if not isinstance(document, dict):
        raise _not_json(received)
    return Answer(received.body, received.received_at, document)


def _collect(response: httpx.Response, body: bytearray, limit: int, deadline: Deadline) -> None:
    """Append the body piece by piece, looking at size and time after each."""
    for piece in _pieces(response):
        body += piece
        if len(body) > limit or response.num_bytes_downloaded > limit + _PIECE:
            raise BadAnswer(
                f"the answer is larger than {limit} bytes",
                remedy="Raise limits.response_size if it is genuine.",
            )
        deadline.check()


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body decompressed, piece by piece, at least one for each that arrived, for the time.

    Not left to httpx, which decompresses whatever arrived in one go: a small answer may be a large one.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        yield from response.iter_raw()
    elif encoding in ("gzip", "x-gzip"):
        yield from _gunzipped(response.iter_raw())
    else:
        what = f"the answer has the Content-Encoding {printable(encoding, 80)}, which was not asked for"
        raise BadAnswer(what, remedy=NOT_APPLE)


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for chunk in chunks:
            rest = chunk
            while rest and not inflate.eof:
                yield inflate.decompress(rest, _PIECE)
                rest = inflate.unconsumed_tail
            yield b""
        yield inflate.flush()
    except zlib.error as error:
        raise httpx.RemoteProtocolError(f"the gzip data is damaged ({error})") from None
    if not inflate.eof:
        raise httpx.RemoteProtocolError("the gzip data is not complete")


def _not_json(received: Received) -> BadAnswer:
    content_type = printable(received.response.headers.get("Content-Type", ""), 80) or "missing"
    beginning = printable(received.body[:1000].decode("utf-8", "replace"), 80)
    return BadAnswer(
        "the answer is not a JSON object of App Store Connect",
        remedy=f"Its content type is {content_type}, and it begins with “{beginning}”. {NOT_APPLE}",
    )
