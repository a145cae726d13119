from __future__ import annotations

import gzip
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from exporter.sandbox.loopback import Answer, Request
from tests.backends.intake import (
    Fault,
    Intake,
    Received,
    Refusal,
    RefusedError,
    check_time,
    flattened,
    sorted_out,
    text_of,
    unpacked,
)

NOW = 1_780_000_000
LIMIT = 1000


class Words(Intake):
    """Keeps words; refuses a body with a no in it, and leaves out what is empty."""

    def __init__(self) -> None:
        super().__init__(body_limit=LIMIT, clock=lambda: float(NOW))
        self.words: list[bytes] = []

    def take(self, request: Request) -> tuple[Answer, list[str]]:
        body = self.checked(request, ("/words",), LIMIT)
        if b"no" in body.split(b" "):
            raise RefusedError("no is no word", 422)
        words = body.split(b" ")
        with self.lock:
            self.words += filter(None, words)
        return Answer(200, {}, b"kept"), ["an empty word" for word in words if not word]

    def failure(self, status: int, reason: str) -> Answer:
        return Answer(status, {"Kind": "words"}, reason.encode())


@contextmanager
def opened() -> Iterator[tuple[Words, httpx.Client]]:
    words = Words()
    with words, httpx.Client(base_url=words.url, trust_env=False) as client:
        yield words, client


def test_what_is_refused_left_out_and_kept_is_told_apart() -> None:
    """A refused request keeps nothing; what is left out of a request that was taken stands there with 200."""
    with opened() as (words, client):
        assert client.post("/words", content=b"one  two").content == b"kept"
        answer = client.post("/words", content=b"three no")
        assert (answer.status_code, answer.content) == (422, b"no is no word")
        assert words.words == [b"one", b"two"]
        assert words.refusals == [
            Refusal("/words", 200, "an empty word"),
            Refusal("/words", 422, "no is no word"),
        ]


def test_each_request_is_noted() -> None:
    """Path, status, content type, encoding, size and time of each request are kept, of dropped ones too."""
    with opened() as (words, client):
        headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
        body = gzip.compress(b"one")
        client.post("/words", content=body, headers=headers)
        words.answer(Fault(close="before"))
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/words", content=b"x")
        assert words.requests == [
            Received("/words", 200, "text/plain", "gzip", len(body), float(NOW)),
            Received("/words", None, "", "", 1, float(NOW)),
        ]


REFUSED: dict[str, tuple[Callable[[httpx.Client], httpx.Response], int, str]] = {
    "another path": (lambda c: c.post("/other", content=b"x"), 404, "nothing at /other"),
    "another method": (lambda c: c.put("/words", content=b"x"), 405, "only POST"),
    "too large": (lambda c: c.post("/words", content=b"x" * (LIMIT + 1)), 413, "larger than 1000"),
    "no length": (lambda c: c.post("/words", content=iter([b"x"])), 411, "Content-Length"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_cannot_be_read_is_refused(case: str) -> None:
    """A wrong path, a wrong method, too large a body and one without a length are refused with a reason."""
    send, status, reason = REFUSED[case]
    with opened() as (words, client):
        answer = send(client)
        assert (answer.status_code, reason in answer.text) == (status, True)
        assert [(refusal.status, refusal.reason) for refusal in words.refusals] == [(status, answer.text)]
        assert words.words == []


def test_a_fault_with_a_status_keeps_nothing_and_is_no_refusal() -> None:
    """A fault answers so many requests with its status, headers and body; nothing of them is kept."""
    with opened() as (words, client):
        words.answer(Fault(status=429, headers={"Retry-After": "7"}), times=2)
        words.answer(Fault(status=503, body=b"down"))
        answers = [client.post("/words", content=b"one") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [429, 429, 503, 200]
        assert (answers[0].headers["retry-after"], answers[0].headers["kind"]) == ("7", "words")
        assert answers[2].content == b"down"
        assert (words.words, words.refusals) == ([b"one"], [])


def test_a_fault_waits_for_its_path() -> None:
    """A fault for a path lets requests for other paths through."""
    with opened() as (words, client):
        words.answer(Fault(status=500, path="/words"))
        assert client.post("/other").status_code == 404
        assert [client.post("/words", content=b"a").status_code for _ in range(2)] == [500, 200]


def test_a_connection_dropped_afterwards_has_kept_the_data() -> None:
    """With close="after" the data is kept and the sender does not get to know."""
    with opened() as (words, client):
        words.answer(Fault(close="after", delay=0.01))
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/words", content=b"one")
        assert words.words == [b"one"]


def test_what_was_kept_outlives_closing() -> None:
    """A stand-in that was closed and is opened again still has what it kept."""
    words = Words()
    for word in (b"one", b"two"):
        with words:
            httpx.post(f"{words.url}/words", content=word, trust_env=False)
    assert words.words == [b"one", b"two"]


def test_requests_at_the_same_time_are_all_kept() -> None:
    """Requests of several senders at once lose nothing."""
    with opened() as (words, client):
        threads = [
            threading.Thread(target=lambda: [client.post("/words", content=b"w") for _ in range(10)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(words.words), len(words.requests)) == (40, 40)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_packed_bodies_are_unpacked(encoding: str) -> None:
    """Bodies come out of identity, gzip and zstd as they went in, up to the limit and no further."""
    text = bytes(range(250)) * 4
    assert unpacked(packed(text, encoding), encoding, len(text)) == text
    with pytest.raises(RefusedError, match="larger than 999 bytes when unpacked") as error:
        unpacked(packed(text, encoding), encoding, 999)
    assert error.value.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    """A small body that would become a large one is refused with 413."""
    with pytest.raises(RefusedError) as error:
        unpacked(packed(bytes(50_000_000), encoding), encoding, LIMIT)
    assert error.value.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_damaged_bodies_are_refused(encoding: str) -> None:
    """A packed body that is cut off, followed by something, empty or something else is refused with 400."""
    whole = packed(b"one two three", encoding)
    for body in (whole[:-1], whole[:7], whole + b"x", b"", b"plain text"):
        with pytest.raises(
            RefusedError, match=f"the (body is not {encoding}|{encoding} body is cut)"
        ) as error:
            unpacked(body, encoding, LIMIT)
        assert error.value.status == 400


def test_an_unknown_encoding_is_refused() -> None:
    """A content encoding that nobody here can read is 415."""
    with pytest.raises(RefusedError, match="'snappy' is none of") as error:
        unpacked(b"x", "snappy", LIMIT)
    assert error.value.status == 415


def packed(text: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        pytest.importorskip("zstandard", reason="the package zstandard is not installed")
        body: bytes = importlib.import_module("zstandard").compress(text)
        return body
    return gzip.compress(text) if encoding == "gzip" else text


def test_attributes_are_flattened() -> None:
    """Plain values and lists keep their types, maps are joined by dots, and a null is empty text."""
    inner = KeyValueList(values=[pair("b", string_value="x"), pair("c", int_value=2)])
    pairs = [
        pair("a", kvlist_value=inner),
        pair("d", bool_value=False),
        pair("e", double_value=0.5),
        pair("f", array_value=ArrayValue(values=[AnyValue(string_value="y"), AnyValue(int_value=0)])),
        KeyValue(key="g"),
    ]
    expected = {"a.b": "x", "a.c": 2, "d": False, "e": 0.5, "f": ("y", 0), "g": ""}
    assert flattened(pairs, "m") == expected


def pair(key: str, **value: Any) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))


def nested(depth: int) -> KeyValue:
    inner = pair("k", string_value="x")
    for _ in range(depth):
        inner = pair("k", kvlist_value=KeyValueList(values=[inner]))
    return inner


def test_attributes_that_cannot_be_kept_are_refused() -> None:
    """A key twice, maps deeper than ten levels, bytes, and lists of lists or maps are refused by name."""
    assert flattened([nested(9)], "m") == {"k.k.k.k.k.k.k.k.k.k": "x"}
    lists = pair("a", array_value=ArrayValue(values=[AnyValue(array_value=ArrayValue())]))
    for pairs, reason in (
        ([pair("a", int_value=1), pair("a", int_value=2)], "m: attribute a twice"),
        ([nested(10)], "deeper than 10 levels"),
        ([pair("a", bytes_value=b"x")], "attribute a holds a bytes_value"),
        ([lists], "attribute a holds a array_value"),
    ):
        with pytest.raises(RefusedError, match=reason):
            flattened(pairs, "m")


def test_values_become_text_as_the_collector_writes_them() -> None:
    """True is `true`, 2.0 is `2`, and a list is refused."""
    assert [text_of(value, "a") for value in ("X", True, 7, 2.0, 0.25)] == ["X", "true", "7", "2", "0.25"]
    with pytest.raises(RefusedError, match="a is a list"):
        text_of(("x",), "a")


def test_times_are_held_to_their_limits() -> None:
    """A time may be as old as allowed and ten minutes ahead, and not a second more of either."""
    for seconds in (NOW - 60, NOW, NOW + 600):
        check_time("m", seconds * 10**9, NOW, 60)
    for seconds, reason in ((NOW - 61, "61 s old"), (NOW + 601, "601 s ahead"), (0, "without a time")):
        with pytest.raises(RefusedError, match=reason):
            check_time("m", seconds * 10**9, NOW, 60)


def test_what_can_be_read_is_sorted_from_what_cannot() -> None:
    """One bad reading costs that reading only."""

    def bad() -> str:
        raise RefusedError("bad")

    assert sorted_out([lambda: "a", bad, lambda: "b"]) == (["a", "b"], ["bad"])
