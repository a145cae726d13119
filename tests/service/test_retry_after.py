from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.retry_after import http_date, retry_after

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "9" * 30}, None),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"Retry-After": "Fri Jan 15 08:00:30 2027"}, 30.0),
        ({"Retry-After": "Friday, 15-Jan-27 08:00:30 GMT"}, 30.0),
        ({"Retry-After": "Fri, 15 Jan 2027 07:59:00 GMT"}, None),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT", "Date": "Fri, 15 Jan 2027 08:00:10 GMT"}, 20.0),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT", "Date": "yesterday"}, 30.0),
    ],
)
def test_both_forms_are_read_and_nothing_else(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds and dates count, a date from the answer's own Date on; garbage and the past are no wish."""
    assert retry_after(headers, NOW) == seconds


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d+ Jan \d{1,6} \d+:\d+:\d+ [+-]?\w+"))
def test_a_hostile_header_never_breaks_anything(text: str) -> None:
    """Whatever the text, the answer is None or a number above 0."""
    for headers in ({"Retry-After": text}, {"Retry-After": "5", "Date": text}):
        seconds = retry_after(headers, NOW)
        assert seconds is None or (math.isfinite(seconds) and seconds > 0)
    moment = http_date(text)
    assert moment is None or math.isfinite(moment)
