from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.convert.units import Unit, unit_of

LEGAL = re.compile(r"(\{[!-z|~]+\}|[A-Za-z%]+)?(/[a-z]+)?")


@pytest.mark.parametrize(
    ("identifier", "display_name", "ucum", "one"),
    [
        ("milliseconds", "ms", "s", 0.001),
        ("nanoseconds", "ns", "s", 1e-9),
        ("microseconds", "µs", "s", 1e-6),
        ("", "μs", "s", 1e-6),
        ("seconds", "s", "s", 1.0),
        ("minutes", "min", "s", 60.0),
        ("hours", "hr", "s", 3600.0),
        ("bytes", "B", "By", 1.0),
        ("kilobytes", "KB", "By", 1e3),
        ("megabytes", "MB", "By", 1e6),
        ("MB", "", "By", 1e6),
        ("gigabytes", "GB", "By", 1e9),
        ("terabytes", "TB", "By", 1e12),
        ("", "KiB", "By", 1024.0),
        ("", "MiB", "By", 1024.0**2),
        ("", "GiB", "By", 1024.0**3),
        ("percentage", "%", "%", 1.0),
        ("scrollHitchRate", "%", "%", 1.0),
        ("hitchRate", "ms/s", "ms/s", 1.0),
        ("milliseconds per second", "", "ms/s", 1.0),
        ("hangRate", "s/hr", "s/h", 1.0),
        ("seconds/hour", "s/hr", "s/h", 1.0),
        ("milliseconds/hour", "", "s/h", 0.001),
        ("diskWrites", "MB/day", "By/d", 1e6),
        ("percentage per day", "", "%/d", 1.0),
        ("hangs/min", "", "{hang}/min", 1.0),
        ("terminations", "", "{termination}", 1.0),
        ("milliseconds", "MB", "s", 0.001),
        ("", "", "", 1.0),
        (" ", "\t", "", 1.0),
    ],
)
def test_a_known_pair_of_words_is_a_unit(identifier: str, display_name: str, ucum: str, one: float) -> None:
    """Each pair gives its UCUM unit and factor; the identifier is believed first, the display name next."""
    unit = unit_of(identifier, display_name)
    assert (unit.ucum, unit.convert(1.0), unit.known) == (ucum, one, True)


@pytest.mark.parametrize(
    ("identifier", "display_name", "ucum"),
    [
        ("fortnights", "", "{fortnights}"),
        ("fortnights", "two weeks", "{two_weeks}"),
        ("", "{hang} [per] launch", "{hang_per_launch}"),
        ("s/s", "", "{s/s}"),
        ("minutes/s", "", "{minutes/s}"),
        ("MB/launch", "", "{MB/launch}"),
        ("frames", "フレーム", "{frames}"),
        ("", "フレーム", "{unknown}"),
        ("%%", "", "{%%}"),
        ("x" * 100, "", "{" + "x" * 60 + "}"),
    ],
)
def test_an_unknown_pair_passes_through(identifier: str, display_name: str, ucum: str) -> None:
    """A unit that nobody knows leaves the number as it is, and says in an annotation what Apple called it."""
    assert unit_of(identifier, display_name) == Unit(ucum, known=False)
    assert unit_of(identifier, display_name).convert(7.25) == 7.25


@pytest.mark.parametrize("word", ["Milliseconds", " milliseconds ", "MILLISECONDS", "MilliSeconds\t"])
def test_case_and_space_do_not_matter(word: str) -> None:
    """A unit is known whatever its case and the space around it."""
    assert unit_of(word, "") == unit_of("milliseconds", "")


@pytest.mark.parametrize("word", ["MB per  day", "mb / day", "MB/Day", " megabytes  per day"])
def test_a_rate_is_known_in_each_spelling(word: str) -> None:
    """A rate is known with a slash or `per`, with or without space."""
    assert unit_of(word, "").ucum == "By/d"


@pytest.mark.parametrize(
    ("unit", "value", "converted"),
    [
        ("ms", 780.0, 0.78),
        ("ms", 0.1, 0.0001),
        ("ms", 1001.0, 1.001),
        ("MB", 0.4, 400_000.0),
        ("us", 3.0, 3e-6),
    ],
)
def test_conversion_gives_the_number_a_person_would_write(unit: str, value: float, converted: float) -> None:
    """780 ms are 0.78 s, not 0.7800000000000000266."""
    assert unit_of(unit, "").convert(value) == converted


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_milliseconds_convert_to_the_nearest_double(milliseconds: int) -> None:
    """No conversion from ms is off by even the last bit."""
    assert unit_of("milliseconds", "ms").convert(float(milliseconds)) == milliseconds / 1000


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=90), st.text(max_size=90))
def test_each_unit_is_legal_ucum(identifier: str, display_name: str) -> None:
    """Whatever Apple writes, the unit is UCUM: an annotation is printable ASCII without braces and space."""
    unit = unit_of(identifier, display_name)
    assert LEGAL.fullmatch(unit.ucum)
    assert unit.known or unit.ucum.startswith("{")
    assert len(unit.ucum) <= 62
