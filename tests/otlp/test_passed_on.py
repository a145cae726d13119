from __future__ import annotations

import pytest

from exporter.otlp.passed_on import of_the_backend, what_to_do
from exporter.otlp.sink import Outcome, Reply

DATADOG = (
    "Permanent error: rpc error: code = X desc = error exporting items, request to "
    "https://otlp.example.com/v1/logs responded with HTTP Status Code {}, Message=, Details=[]"
)
SPLUNK = 'Permanent error: HTTP "/v2/datapoint" {} "Some Words"'


@pytest.mark.parametrize("words", [DATADOG, SPLUNK], ids=["datadog", "splunk"])
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, Outcome.BAD_DATA),
        (401, Outcome.REFUSED),
        (403, Outcome.REFUSED),
        (413, Outcome.FAILED),
        (429, Outcome.RETRY),
        (500, Outcome.FAILED),
    ],
)
def test_the_backends_status_decides(words: str, status: int, outcome: Outcome) -> None:
    """Whatever the Collector makes of it: a wrong key is a refusal, 400 is bad data, 429 will pass."""
    reply = of_the_backend(Reply(Outcome.FAILED, message="HTTP 500: " + words.format(status)))
    assert reply.outcome is outcome


@pytest.mark.parametrize(
    "reply",
    [
        Reply(Outcome.ACCEPTED, rejected=2, message="Status Code 403 in the words of a partial success"),
        Reply(Outcome.RETRY, message="HTTP 503: data refused due to high memory usage"),
        Reply(Outcome.REFUSED, message="HTTP 404: 404 page not found"),
        Reply(Outcome.FAILED, message="HTTP 500: the Collector's own trouble"),
    ],
)
def test_an_answer_of_the_collectors_own_stays(reply: Reply) -> None:
    """Without a backend's words nothing is read into it."""
    assert of_the_backend(reply) == reply


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Throttle (7s), error: HTTP", 7.0),
        ("Throttle (2m0s), error: HTTP", 120.0),
        ("Throttle (1h0m0s), error: HTTP", 3600.0),
        ("Throttle (1m30.5s), error: HTTP", 90.0),
        ("Throttle (0s), error: HTTP", None),
        ("Throttle (soon), error: HTTP", None),
        ("Throttle (), error: HTTP", None),
    ],
)
def test_a_wait_that_the_backend_wants_is_read(words: str, seconds: float | None) -> None:
    """The Collector passes Retry-After on in words only."""
    assert of_the_backend(Reply(Outcome.RETRY, message=words)).retry_after == seconds


def test_a_wait_in_the_answer_itself_comes_first() -> None:
    """The endpoint's own Retry-After is not overruled by words."""
    reply = Reply(Outcome.RETRY, message="Throttle (7s)", retry_after=3.0)
    assert of_the_backend(reply).retry_after == 3.0


@pytest.mark.parametrize(
    ("message", "perhaps"),
    [("HTTP 503: request failed: context deadline exceeded", True), ("HTTP 503: connection refused", False)],
)
def test_a_backend_that_was_too_slow_may_have_taken_it(message: str, perhaps: bool) -> None:
    """The Collector's time-out says nothing of what the backend did."""
    assert of_the_backend(Reply(Outcome.RETRY, message=message)).perhaps_taken is perhaps


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("HTTP 403: " + DATADOG.format(403), "refuses the Collector's key or token"),
        ("HTTP 500: " + SPLUNK.format(401), "refuses the Collector's key or token"),
        ("HTTP 400: " + DATADOG.format(400), "the backend's own answer"),
        (
            'HTTP 503: failed to make an HTTP request: Post "https://x": no such host',
            "does not reach the backend",
        ),
        ("ConnectError: [Errno 111] Connection refused", "Is the Collector running"),
        ("HTTP 403: a proxy's words", "Is the Collector running"),
        ("", "Is the Collector running"),
    ],
)
def test_the_remedy_says_whose_trouble_it_is(message: str, words: str) -> None:
    """The backend's key, the way to it, or the Collector itself."""
    assert words in what_to_do(message)
