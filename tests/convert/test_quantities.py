from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.convert.quantities import duration_in, size_in

# Grouping and decimal mark, as the regions of iOS write them.
REGIONS = [
    (",", "."),
    (".", ","),
    (" ", ","),
    ("\u00a0", ","),
    ("\u202f", ","),
    ("'", "."),
    ("’", ","),
    ("", "."),
]
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
FULL_WIDTH = {ord(digit): chr(0xFF10 + int(digit)) for digit in "0123456789"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1073.76 MB", 1_073_760_000),
        ("1073.76MB", 1_073_760_000),
        ("1073.76  MB", 1_073_760_000),
        ("2,147.48 MB", 2_147_480_000),
        ("1,024 MB", 1_024_000_000),
        ("Total of 1073.76 MB of disk writes", 1_073_760_000),
        ("Total of 1.2 GB of disk writes", 1_200_000_000),
        ("1.073,76 MB", 1_073_760_000),
        ("1 073,76 Mo", 1_073_760_000),
        ("1\u00a0073,76\u00a0Mo", 1_073_760_000),
        ("1\u202f073,76\u202fMo", 1_073_760_000),
        ("10 000 000 octets", 10_000_000),
        ("1 octet", 1),
        ("12 ko", 12_000),
        ("12 Ko", 12_000),
        ("1,5 Go", 1_500_000_000),
        ("2 To", 2_000_000_000_000),
        ("1'024 kB", 1_024_000),
        ("1’024.5 kB", 1_024_500),
        ("1.073.760 KB", 1_073_760_000),
        ("1,024,000 KB", 1_024_000_000),
        ("1,02,400 KB", 102_400_000),
        ("1,024,000.5 KB", 1_024_000_500),
        ("1,2 GB", 1_200_000_000),
        ("1,20 GB", 1_200_000_000),
        ("1.024 MB", 1_024_000),
        ("0,500 MB", 500_000),
        ("1024,500 kB", 1_024_500),
        ("1 073,760 Mo", 1_073_760_000),
        ("1 KiB", 1024),
        ("10 MiB", 10 * 2**20),
        ("3 GiB", 3 * 2**30),
        ("1 TB", 10**12),
        ("7 bytes", 7),
        ("0 MB", 0),
        ("٥ MB", 5_000_000),
        ("١٬٠٧٣٫٧٦ MB", 1_073_760_000),
        ("\uff15 MB", 5_000_000),
        ("'5 MB'", 5_000_000),
        ("(5 MB)", 5_000_000),
        ("Disk writes: 5 MB.", 5_000_000),
        ("90 sec, 3 files, 5 MB, 6 MB", 5_000_000),
        ("iPhone OS 14.6 (18F72) wrote 5 MB", 5_000_000),
        ("version 2.1 500 MB", 500_000_000),
        ("1.2.3 wrote 5 MB", 5_000_000),
        ("up to 5 to 10 MB", 10_000_000),
        ("1 GB 200 MB", 1_000_000_000),
        ("2024 500 MB", 500_000_000),
    ],
)
def test_a_size_in_words_is_bytes(text: str, size: float) -> None:
    """The first number with a unit of size is read by the marks of its region; MB are 10^6 bytes."""
    assert size_in(text) == pytest.approx(size, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90 sec", 90),
        ("90 sec.", 90),
        ("1.2 seconds", 1.2),
        ("1,2 s", 1.2),
        ("850 ms", 0.85),
        ("1,500 ms", 1.5),
        ("1 500 ms", 1.5),
        ("3 µs", 3e-6),
        ("2 h", 7200),
        ("5 m", 300),
        ("1 min 30 sec", 90),
        ("1 min, 30 sec", 90),
        ("1 min,30 sec", 90),
        ("1 minute and 30 seconds", 90),
        ("2m 5s", 125),
        ("2m5s", 125),
        ("1 hour, 2 minutes, and 3.5 seconds", 3723.5),
        ("5 sec 500 ms", 5.5),
        ("1.5 min 30 sec", 90),
        ("10 s 20 s", 10),
        ("30 sec 1 min", 30),
        ("2 min 10 MB", 120),
        ("1 min and some", 60),
        ("1 min 30", 60),
        ("Hang of 2.4 seconds on the main thread", 2.4),
        ("1.2 GB in 90 sec", 90),
        ("5 M then 3 s", 3),
        ("89 seconds over 112 seconds", 89),
    ],
)
def test_a_duration_in_words_is_seconds(text: str, duration: float) -> None:
    """The first number with a unit of time is read; whole parts go on with the next smaller unit."""
    assert duration_in(text) == pytest.approx(duration, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "MB", "5", "5 MB/s", "5 parsecs", "5 Mbit", "-5 MB", "−5 MB", "10-20 MB", "10–20 MB"),
        *("nan MB", "inf MB", "1e3 MB", "x5 MB", "5_MB", ".5 MB", ",5 MB", "1..5 MB", "10² MB", "½ MB"),
        *(
            "1,2.3,4 MB",
            "1.2.3 MB",
            "1,0240,000 MB",
            "1,024.000.5 MB",
            "1,024'000 MB",
            "0 500 MB",
            "1.2.3 MB then 5 MB",
        ),
        *("5 mo", "5 to", "5 go", "5 o", "9" * 297 + " TB", "9" * 400 + " MB", "x" * 300 + " 5 MB"),
    ],
)
def test_what_is_no_size_is_none(text: str) -> None:
    """Without number or unit, negative, a range, a rate, malformed or too large: None and no guess."""
    assert size_in(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sec",
        "-1 s",
        "1.2.3 s",
        "1 min 1.2.3 s",
        "5 MB",
        "3 ms/s",
        "x" * 300 + "5 s",
    ],
)
def test_what_is_no_duration_is_none(text: str) -> None:
    """A duration that cannot be read, or whose second part cannot, is None and not a part of itself."""
    assert duration_in(text) is None


def spelled(number: str, grouping: str, decimal: str) -> str:
    """`1234567.8` with the marks of a region."""
    whole, dot, fraction = number.partition(".")
    return f"{int(whole):,}".replace(",", grouping) + (decimal if dot else "") + fraction


def ambiguous(text: str, grouping: str, decimal: str) -> bool:
    """A lone mark before three digits, of which a region means the one and the rule the other."""
    marks = [character for character in text if not character.isdecimal()]
    lone_comma_is_decimal = marks == [","] == [decimal] and len(text.partition(",")[2]) == 3
    return lone_comma_is_decimal or marks == ["."] == [grouping]


@given(
    st.integers(0, 10**15),
    st.text("0123456789", max_size=6),
    st.sampled_from(REGIONS),
    st.sampled_from([{}, ARABIC, FULL_WIDTH]),
    st.sampled_from([("B", 1.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("MiB", 2.0**20), ("Mo", 1e6)]),
    st.sampled_from(["{}", "Total of {} of disk writes", "{}, in all", "({})", "90 sec: {}"]),
)
def test_a_number_in_any_regions_spelling_is_read_back(
    whole: int,
    fraction: str,
    region: tuple[str, str],
    script: dict[int, int],
    unit: tuple[str, float],
    sentence: str,
) -> None:
    """Whatever the region, script, unit and sentence: the number that was written is the number read."""
    number = f"{whole}.{fraction}" if fraction else str(whole)
    text = spelled(number, *region)
    if not ambiguous(text, *region):
        written = sentence.format(f"{text.translate(script)} {unit[0]}")
        assert size_in(written) == float(number) * unit[1]


@given(st.integers(0, 59), st.integers(0, 59), st.integers(0, 999), st.sampled_from([" ", ", ", " and "]))
def test_parts_of_a_duration_add_up(minutes: int, seconds: int, milliseconds: int, joint: str) -> None:
    """Minutes, seconds and milliseconds, joined in any way, are their sum."""
    text = joint.join((f"{minutes} min", f"{seconds} sec", f"{milliseconds} ms"))
    assert duration_in(text) == minutes * 60 + seconds + milliseconds / 1000


@given(st.text(max_size=400) | st.text("0123456789 .,'-", max_size=400).map(lambda text: text + " MB 5 s"))
def test_any_text_gives_a_finite_amount_or_none(text: str) -> None:
    """Nothing raises, and nothing infinite, negative or NaN comes out."""
    for amount in (size_in(text), duration_in(text)):
        assert amount is None or 0 <= amount < float("inf")


@pytest.mark.parametrize("part", ["9", "1 111", "1,", "1.", "1 ", "a1", "1 min ", "-1 MB", "'1"])
def test_a_hostile_text_costs_no_more_than_its_beginning(part: str) -> None:
    """A megabyte of anything takes the time of its first few hundred characters."""
    text, started = part * (1_000_000 // len(part)), time.process_time()
    size_in(text)
    duration_in(text)
    assert time.process_time() - started < 0.1
