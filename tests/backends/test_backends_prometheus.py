from __future__ import annotations

import math

import pytest

from tests.backends.prometheus import Sample, read_samples

SCRAPE = """\
# HELP appstore_launch_time_seconds How long.
# TYPE appstore_launch_time_seconds gauge
appstore_launch_time_seconds{device="iPhone15,2",job="com.example.Harbour"} 0.7 1780000000000
appstore_launch_time_seconds{device="a}b\\\\c\\"d\\ne"} 1e-05

# TYPE appstore_spread_seconds histogram
appstore_spread_seconds_bucket{le="1"} 1
appstore_spread_seconds_bucket{le="+Inf",} 3
appstore_spread_seconds_sum 4.5
appstore_spread_seconds_count 3
up 1
"""


def test_each_line_becomes_a_sample() -> None:
    """Samples keep name, kind of their metric, labels without escapes, value and time, in order."""
    spread = "appstore_spread_seconds"
    assert read_samples(SCRAPE) == [
        Sample(
            "appstore_launch_time_seconds",
            "gauge",
            {"device": "iPhone15,2", "job": "com.example.Harbour"},
            0.7,
            1_780_000_000_000,
        ),
        Sample("appstore_launch_time_seconds", "gauge", {"device": 'a}b\\c"d\ne'}, 0.00001, None),
        Sample(f"{spread}_bucket", "histogram", {"le": "1"}, 1, None),
        Sample(f"{spread}_bucket", "histogram", {"le": "+Inf"}, 3, None),
        Sample(f"{spread}_sum", "histogram", {}, 4.5, None),
        Sample(f"{spread}_count", "histogram", {}, 3, None),
        Sample("up", "untyped", {}, 1, None),
    ]


def test_values_that_are_no_numbers_are_read() -> None:
    """NaN and both infinities are values."""
    values = [sample.value for sample in read_samples("a NaN\nb +Inf\nc -Inf\n")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    assert read_samples("") == []


@pytest.mark.parametrize(
    "line",
    ["<html>", "a", "a b", "a{b=c} 1", 'a{b="c" 1', 'a{b="c",b="d"} 1', 'a{b="c"d="e"} 1', "a.b 1", "a 1 x"],
)
def test_what_is_no_sample_is_an_error(line: str) -> None:
    """A line that is neither a sample nor a comment is a ValueError."""
    with pytest.raises(ValueError, match=r"not a sample|not labels|could not convert"):
        read_samples(line)


def test_a_series_twice_is_an_error() -> None:
    """Of two lines of one series, whatever the order of the labels, Prometheus would refuse the scrape."""
    with pytest.raises(ValueError, match="a series twice"):
        read_samples('a{b="1",c="2"} 1\na{c="2",b="1"} 2\n')
