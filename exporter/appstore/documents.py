"""JSON documents, of any depth.

The standard library's parser gives up at some thousand levels, or at a few hundred: it depends on the
version of Python. A call stack of 10,000 frames is 20,000 levels of JSON. So what it cannot read is read once
more, by a parser that keeps its place on a stack of its own.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from decimal import Decimal
from math import inf
from typing import Any

import httpx

from exporter.errors import BadAnswer

NOT_APPLE = "Check base_url and any proxy in between: App Store Connect does not answer like this."

_PIECE = 64 * 1024
_DEEPEST = 50_000  # a frame of a call stack is two levels: 25,000 frames, far beyond any thread's stack
_STARTS = frozenset({"start_map", "start_array"})
_ENDS = frozenset({"end_map", "end_array"})
_STRING_OR_NUMBER = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?', re.DOTALL
)


def loads(body: bytes) -> object:
    """Return the JSON in a body, however deep; every number is a float, a huge one an infinity.

    Raises:
        ValueError: it is not JSON.
        BadAnswer: it is nested deeper than 50,000 levels.
        httpx.RemoteProtocolError: it is an object that was cut off.
    """
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


def _is_cut_off(body: bytes, *, at_end: bool) -> bool:
    """Tell whether an object that could not be read was cut off; `at_end`: all of it up to there was JSON."""
    text = body.strip()
    if not text.startswith(b"{"):
        return not text
    return at_end or not text.endswith(b"}")


def _cut_off() -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError("the answer ends in the middle of its JSON")


def _grown(body: bytes) -> object:
    import ijson  # here, since a start does not need it

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
