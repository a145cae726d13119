"""Reading an answer: its body within limits of size and time, unpacked, and the JSON in it.

What ended before its end is an httpx.TransportError, whoever noticed it; what cannot be meant is a BadAnswer.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from math import inf
from typing import Any

import httpx

from exporter.appstore.jsonapi import printable
from exporter.errors import BadAnswer

__all__ = [
    "NOT_APPLE",
    "Answer",
    "Deadline",
    "Received",
    "loads_deep",
    "parse",
    "read_body",
    "read_error_body",
]

NOT_APPLE = "Check base_url and any proxy in between: App Store Connect does not answer like this."

_ERROR_BODY = 64 * 1024
_PIECE = 64 * 1024

_DEEPEST = 50_000  # a frame of a call stack is two levels: 25,000 frames, far beyond any thread's stack
_STARTS = frozenset({"start_map", "start_array"})
_ENDS = frozenset({"end_map", "end_array"})
_STRING_OR_NUMBER = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?', re.DOTALL
)


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
        document = _loads(received.body)
    except ValueError:
        raise _not_json(received) from None
    if not isinstance(document, dict):
        raise _not_json(received)
    return Answer(received.body, received.received_at, document)


def loads_deep(body: bytes) -> object:
    """Return what `json.loads(body, parse_int=float)` would if it knew no depth, in several times its time.

    These are dicts, lists, strings, floats, booleans and None, at most 50,000 levels of them. The text has to
    be UTF-8 without a byte order mark. NaN and Infinity, which JSON does not have, are refused, and so is an
    exponent of more than 18 digits. Half a surrogate pair may become a question mark.

    Raises:
        ValueError: it is not JSON.
        BadAnswer: it is nested too deep.
        httpx.RemoteProtocolError: it is an object that was cut off.
    """
    return _grown(_tamed(body))


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


def _loads(body: bytes) -> object:
    try:
        # int() would refuse a number of 4301 digits, and with it the whole answer.
        return json.loads(body, parse_int=float)
    except RecursionError:
        return loads_deep(body)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" and _is_cut_off(body, at_end=error.pos >= len(error.doc.rstrip())):
            raise _cut_off() from None
        raise
    except UnicodeDecodeError:
        if _is_cut_off(body, at_end=False):
            raise _cut_off() from None
        raise


def _is_cut_off(body: bytes, *, at_end: bool) -> bool:
    """Tell whether an object that could not be read was cut off; `at_end`: all of it up to there was JSON."""
    text = body.strip()
    if not text.startswith(b"{"):
        return not text
    return at_end or not text.endswith(b"}")


def _cut_off() -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError("the answer ends in the middle of its JSON")


def _grown(body: bytes) -> object:
    import ijson  # type: ignore[import-untyped]  # here, since a start does not need it

    events: list[tuple[str, Any]] = ijson.sendable_list()
    parser, tree, at_end = ijson.basic_parse_coro(events), _Tree(), False
    try:
        for start in range(0, len(body), _PIECE):
            parser.send(body[start : start + _PIECE])
            tree.grow(events)
        at_end = True
        parser.close()
        tree.grow(events)
    except (ijson.JSONError, ValueError, ArithmeticError) as error:
        tree.grow(events)
        if not tree.complete and _is_cut_off(body, at_end=at_end):
            raise _cut_off() from None
        raise ValueError(str(error)) from None
    except BadAnswer:
        with suppress(ijson.JSONError):  # left open, the parser in Python would complain to stderr
            parser.close()
        raise
    return tree.top[0]


class _Tree:
    """A document that grows by ijson's events, on a stack of its own; it is the one entry of `top`."""

    def __init__(self) -> None:
        self.top: list[object] = []
        self._inmost: Any = self.top
        self._around: list[Any] = []
        self._key = ""

    @property
    def complete(self) -> bool:
        return bool(self.top) and not self._around

    def grow(self, events: list[tuple[str, Any]]) -> None:
        """Take in the events and empty the list.

        One loop, since it runs millions of times. Each key is kept once, as json does: a third of the memory.

        Raises:
            BadAnswer: they nest too deep.
        """
        inmost, around, key = self._inmost, self._around, self._key
        for event, value in events:
            if event == "map_key":
                key = sys.intern(value)
                continue
            if event in _ENDS:
                inmost = around.pop()
                continue
            if event == "number":
                value = _float(value)
            elif event in _STARTS:
                value = {} if event == "start_map" else []
            if type(inmost) is dict:
                inmost[key] = value
            else:
                inmost.append(value)
            if event in _STARTS:
                around.append(inmost)
                inmost = value
                if len(around) > _DEEPEST:
                    raise BadAnswer("the answer's JSON is nested too deep", remedy=NOT_APPLE)
        events.clear()
        self._inmost, self._key = inmost, key


def _float(number: int | Decimal) -> float:
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def _tamed(body: bytes) -> bytes:
    """Return the document with floats in place of integers that may be too long for int().

    Python's limit is 640 digits or more; so many in a row cover one of the parts looked at.
    """
    if any(body[start : start + 320].isdigit() for start in range(0, len(body), 320)):
        return _STRING_OR_NUMBER.sub(_tame, body)
    return body


def _tame(token: re.Match[bytes]) -> bytes:
    text = token[0]
    if len(text) <= 320 or text.startswith(b'"'):
        return text
    return repr(float(text)).replace("inf", "1e999").encode()


def _not_json(received: Received) -> BadAnswer:
    content_type = printable(received.response.headers.get("Content-Type", ""), 80) or "missing"
    beginning = printable(received.body[:1000].decode("utf-8", "replace"), 80)
    return BadAnswer(
        "the answer is not a JSON object of App Store Connect",
        remedy=f"Its content type is {content_type}, and it begins with “{beginning}”. {NOT_APPLE}",
    )
