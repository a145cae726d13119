"""What the stand-ins for the backends behind a Collector have in common: faults, refusals, packed bodies."""

from __future__ import annotations

import importlib
import importlib.util
import io
import threading
import time
import zlib
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from exporter.sandbox.loopback import Answer, LoopbackServer, Request
from exporter.sandbox.points import Attributes, AttributeValue

PROTOBUF_TYPE = "application/x-protobuf"
NEWEST_SECONDS = 600  # Datadog takes nothing that is further ahead
_DEEPEST = 10  # Datadog flattens ten levels

T = TypeVar("T")


class RefusedError(Exception):
    """A request, point or record that the backend would not keep as it was sent.

    Args:
        reason: the rule that was broken, with the name of what broke it; never a credential.
        status: the HTTP status with which a whole request is refused.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Fault:
    """What to do wrong with an answer. With a `status`, or with `close="before"`, nothing is kept.

    Args:
        status: the HTTP status; None answers as usual.
        headers: headers to add, such as `Retry-After`.
        body: by default what the backend says on such a status.
        delay: seconds to wait before answering.
        close: drop the connection without an answer, `before` or `after` having kept the data.
        path: which requests it is for, such as `/v1/logs`; None: whichever comes next.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    close: Literal["before", "after"] | None = None
    path: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Something that did not get in, or not as it was sent.

    Args:
        path: of the request.
        status: what the request was answered. 2xx: it was taken, and one point or record of it left out,
            which a sender does not get to know.
        reason: the rule that was broken, and by what.
    """

    path: str
    status: int
    reason: str


@dataclass(frozen=True)
class Received:
    """A request that came in.

    Args:
        path: without the query.
        status: what was answered; None if the connection was dropped instead.
        content_type: as sent.
        encoding: the content encoding as sent; empty when there was none.
        bytes: length of the body as sent.
        at: the stand-in's clock, Unix seconds.
    """

    path: str
    status: int | None
    content_type: str
    encoding: str
    bytes: int
    at: float


class Intake(LoopbackServer):
    """A backend's intake on 127.0.0.1.

    Args:
        body_limit: bytes of a body as sent; larger ones are 413.
        clock: Unix seconds; points and records have to lie near it.
        port: 0 takes a free one; what was kept outlives closing and opening again.
    """

    def __init__(self, *, body_limit: int, clock: Callable[[], float] = time.time, port: int = 0) -> None:
        super().__init__(port=port, body_limit=body_limit)
        self.clock = clock
        self.lock = threading.Lock()
        self._limit = body_limit
        self._faults: deque[Fault] = deque()
        self._refusals: list[Refusal] = []
        self._requests: list[Received] = []

    @abstractmethod
    def take(self, request: Request) -> tuple[Answer, list[str]]:
        """Keep what is in a request.

        Returns:
            The answer, and for each point or record that was left out the reason.

        Raises:
            RefusedError: the request is refused as a whole, and nothing of it was kept.
        """

    @abstractmethod
    def failure(self, status: int, reason: str) -> Answer:
        """What the backend answers with this status, which is no success."""

    @property
    def refusals(self) -> list[Refusal]:
        """All that broke a rule, the oldest first; what `answer` asked for is not among it."""
        with self.lock:
            return list(self._refusals)

    @property
    def requests(self) -> list[Received]:
        """The requests so far, refused ones too, the oldest first."""
        with self.lock:
            return list(self._requests)

    def answer(self, fault: Fault, times: int = 1) -> None:
        """Answer the next `times` requests that it is for with this fault; faults queue up."""
        with self.lock:
            self._faults.extend([fault] * times)

    def respond(self, request: Request) -> Answer:
        """Answer one request."""
        fault = self._next_fault(request.path)
        if fault.close == "before" or fault.status is not None:
            answer = self._scripted(fault)
        else:
            answer = self._answered(request)
        headers = {**answer.headers, **fault.headers}
        answer = replace(answer, headers=headers, delay=fault.delay, silent=fault.close is not None)
        self._note(request, answer)
        return answer

    def checked(self, request: Request, paths: Iterable[str], unpacked_limit: int) -> bytes:
        """The body, unpacked, of a POST to one of the paths; RefusedError when anything else came."""
        if request.path not in paths:
            raise RefusedError(f"there is nothing at {request.path[:200]}", 404)
        if request.method != "POST":
            raise RefusedError("only POST is allowed here", 405)
        if request.problem == "too large":
            raise RefusedError(f"the body is larger than {self._limit} bytes", 413)
        if request.problem == "no length":
            raise RefusedError("the body needs a Content-Length", 411)
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        return unpacked(request.body, encoding, unpacked_limit)

    def _next_fault(self, path: str) -> Fault:
        with self.lock:
            for place, fault in enumerate(self._faults):
                if fault.path in (None, path):
                    del self._faults[place]
                    return fault
        return Fault()

    def _scripted(self, fault: Fault) -> Answer:
        answer = self.failure(fault.status or 200, "the stand-in was told to fail")
        return answer if fault.body is None else replace(answer, body=fault.body)

    def _answered(self, request: Request) -> Answer:
        try:
            answer, left_out = self.take(request)
        except RefusedError as error:
            answer, left_out = self.failure(error.status, str(error)), [str(error)]
        with self.lock:
            self._refusals += [Refusal(request.path, answer.status, reason) for reason in left_out]
        return answer

    def _note(self, request: Request, answer: Answer) -> None:
        received = Received(
            path=request.path,
            status=None if answer.silent else answer.status,
            content_type=request.headers.get("Content-Type", ""),
            encoding=request.headers.get("Content-Encoding", ""),
            bytes=len(request.body),
            at=self.clock(),
        )
        with self.lock:
            self._requests.append(received)


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its content encoding: `identity`, `gzip` or `zstd`.

    Raises:
        RefusedError: it is more than `limit` bytes (413), cut off or something else (400), or of an
            encoding that nobody here can read (415).
    """
    if encoding == "identity":
        text, whole = body, True
    elif encoding == "gzip":
        text, whole = _from_gzip(body, limit)
    elif encoding == "zstd":
        text, whole = _from_zstd(body, limit)
    else:
        raise RefusedError(f"content encoding {encoding[:40]!r} is none of identity, gzip and zstd", 415)
    if len(text) > limit:
        raise RefusedError(f"the body is larger than {limit} bytes when unpacked", 413)
    if not whole:
        raise RefusedError(f"the {encoding} body is cut off, or followed by something else")
    return text


def _from_gzip(body: bytes, limit: int) -> tuple[bytes, bool]:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        text = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise RefusedError(f"the body is not gzip: {error}") from error
    return text, unpacker.eof and not unpacker.unused_data


def _from_zstd(body: bytes, limit: int) -> tuple[bytes, bool]:
    # Python has no zstd of its own before 3.14, and nothing but this needs one.
    if importlib.util.find_spec("zstandard") is None:
        raise RefusedError("zstd cannot be read here: the package zstandard is not installed", 415)
    zstd = importlib.import_module("zstandard")
    try:
        # The reader stops at the limit but does not say whether the frame ended; the object does.
        text: bytes = zstd.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(limit + 1)
        if len(text) > limit:
            return text, False
        unpacker = zstd.ZstdDecompressor().decompressobj()
        text = unpacker.decompress(body)
    except zstd.ZstdError as error:
        raise RefusedError(f"the body is not zstd: {error}") from error
    return text, unpacker.eof and not unpacker.unused_data


def sorted_out(readings: Iterable[Callable[[], T]]) -> tuple[list[T], list[str]]:
    """What could be read, and the reasons why the rest could not."""
    kept: list[T] = []
    left_out: list[str] = []
    for read in readings:
        try:
            kept.append(read())
        except RefusedError as error:
            left_out.append(str(error))
    return kept, left_out


def check_time(where: str, unix_nano: int, now: float, oldest: float) -> None:
    """RefusedError unless the time, in ns, is at most `oldest` s before `now` or ten minutes after it."""
    age = now - unix_nano / 1e9
    if not unix_nano:
        raise RefusedError(f"{where}: without a time")
    if age > oldest:
        raise RefusedError(f"{where}: {age:.0f} s old; the limit is {oldest:.0f} s")
    if age < -NEWEST_SECONDS:
        raise RefusedError(f"{where}: {-age:.0f} s ahead; the limit is {NEWEST_SECONDS} s")


def parse(message: Message, body: bytes) -> None:
    """Fill the message from the body; RefusedError when it is another one."""
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise RefusedError(f"the body is not a protobuf {message.DESCRIPTOR.name}") from error


def flattened(pairs: Iterable[KeyValue], where: str) -> Attributes:
    """Attributes as a flat dictionary, the keys of maps joined by dots; RefusedError at a key twice.

    Args:
        pairs: as sent.
        where: whose they are, for the error.
    """
    attributes: Attributes = {}
    for key, value in _flat(pairs, "", where, 1):
        if key in attributes:
            raise RefusedError(f"{where}: attribute {key} twice")
        attributes[key] = value
    return attributes


def _flat(
    pairs: Iterable[KeyValue], prefix: str, where: str, depth: int
) -> Iterator[tuple[str, AttributeValue]]:
    if depth > _DEEPEST:
        raise RefusedError(f"{where}: attribute {prefix[:80]} is nested deeper than {_DEEPEST} levels")
    for pair in pairs:
        if pair.value.WhichOneof("value") == "kvlist_value":
            yield from _flat(pair.value.kvlist_value.values, f"{prefix}{pair.key}.", where, depth + 1)
        else:
            yield prefix + pair.key, _plain(pair.value, f"{where}: attribute {prefix}{pair.key}")


def _plain(value: AnyValue, where: str) -> AttributeValue:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_scalar(entry, where) for entry in value.array_value.values)
    return _scalar(value, where)


def _scalar(value: AnyValue, where: str) -> str | bool | int | float:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return value.double_value
    if kind is None:  # a null; the Collector writes it as no text
        return ""
    raise RefusedError(f"{where} holds a {kind}, not plain values")


def text_of(value: AttributeValue, where: str) -> str:
    """A plain value as the Collector writes it into a tag or dimension; RefusedError for a list."""
    if isinstance(value, tuple):
        raise RefusedError(f"{where} is a list, which would become JSON text")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
