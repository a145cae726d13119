from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.appstore.quota import Quota, RateLimit, parse_rate_limit
from exporter.errors import ConfigError, OverBudget

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("user-hour-lim:3500;user-hour-rem:500;", RateLimit(3500, 500)),
        ("user-hour-rem:500;user-hour-lim:3600", RateLimit(3600, 500)),
        (" User-Hour-Lim : 3500 ; user-hour-rem : 0 ", RateLimit(3500, 0)),
        ("user-hour-lim:3500;user-hour-rem:-3;", RateLimit(3500, 0)),
        (
            "user-hour-lim:3500;user-hour-rem:9;user-minute-lim:300;user-minute-rem:7;",
            RateLimit(3500, 9, 300, 7),
        ),
        ("user-hour-lim:3500;user-hour-rem:9;user-minute-lim:0;", RateLimit(3500, 9)),
        ("user-hour-lim:3500;user-hour-rem:9;user-day-lim:1", RateLimit(3500, 9)),
        ("user-hour-lim:3500;user-hour-rem:1;, user-hour-lim:3500;user-hour-rem:2;", RateLimit(3500, 2)),
        (None, None),
        ("", None),
        ("garbage", None),
        ("user-hour-lim:3500;", None),
        ("user-hour-rem:3500;", None),
        ("user-hour-lim:0;user-hour-rem:0;", None),
        ("user-hour-lim:many;user-hour-rem:5;", None),
        ("user-hour-lim:" + "9" * 5000 + ";user-hour-rem:5;", None),
        ("x-user-hour-lim:3500;user-hour-rem:5", None),
        ("user-hour-lim:٣٥٠٠;user-hour-rem:5", None),
    ],
)
def test_the_header_is_read_leniently(header: str | None, told: RateLimit | None) -> None:
    """Whatever stands in the header, both numbers of the hour are read from it or nothing is."""
    assert parse_rate_limit(header) == told


@given(st.text(max_size=200))
def test_no_header_raises(header: str) -> None:
    """A header that another host made up never raises."""
    told = parse_rate_limit(header)
    assert told is None or told.limit > 0


@pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan, math.inf])
def test_an_impossible_share_is_refused(share: float) -> None:
    """The share has to be above 0 and up to 1."""
    with pytest.raises(ConfigError, match="share"):
        Quota(share)


def test_before_any_answer_the_limit_is_assumed() -> None:
    """Without a header our share is taken of 3500."""
    quota = Quota(0.5)
    assert (quota.limit, quota.remaining, quota.allowance(NOW)) == (3500, None, 1750)


def test_our_own_use_counts_for_one_hour() -> None:
    """A request of ours lowers the allowance until an hour after its start, also after a restart."""
    quota = Quota(0.01, used=[NOW - 3600, NOW - 3599, NOW - 10, math.nan])
    assert quota.used(NOW) == 2
    assert quota.allowance(NOW) == 33
    assert quota.used(NOW + 1) == 1
    assert quota.allowance(NOW + 3590) == 35


def test_the_larger_part_of_a_used_up_hour_is_left_to_others() -> None:
    """When others used most of the hour, we take our share of the rest only."""
    quota = Quota(0.5)
    quota.saw("user-hour-lim:3600;user-hour-rem:101;", NOW)
    assert (quota.limit, quota.remaining, quota.allowance(NOW)) == (3600, 101, 50)


def test_what_was_left_an_hour_ago_says_nothing() -> None:
    """A remaining number older than an hour counts as full again."""
    quota = Quota(0.5)
    quota.saw("user-hour-lim:3500;user-hour-rem:0;", NOW)
    assert quota.allowance(NOW + 3600) == 0
    assert quota.allowance(NOW + 3601) == 1750


def test_garbage_in_the_header_changes_nothing() -> None:
    """The last good header stays in force."""
    quota = Quota(0.5)
    quota.saw("user-hour-lim:100;user-hour-rem:80;", NOW)
    quota.saw("nonsense", NOW)
    quota.saw(None, NOW)
    assert quota.allowance(NOW) == 40


@given(
    share=st.floats(0.001, 1),
    limit=st.integers(1, 10_000),
    remaining=st.integers(0, 20_000),
    ages=st.lists(st.floats(0, 7200), max_size=50),
)
def test_the_allowance_follows_its_formula(
    share: float, limit: int, remaining: int, ages: list[float]
) -> None:
    """The allowance is our share of what others left, less our own use, and never below zero."""
    quota = Quota(share, used=[NOW - age for age in ages])
    quota.saw(f"user-hour-lim:{limit};user-hour-rem:{remaining};", NOW)
    own = sum(NOW - age > NOW - 3600 for age in ages)
    unused_by_others = min(limit, remaining + own)
    assert quota.allowance(NOW) == max(0, math.floor(share * unused_by_others) - own)


@pytest.mark.parametrize("others", [0, 1, 60, 99, 100])
def test_the_share_of_the_rest_is_taken_once(others: int) -> None:
    """However many answers tell what is left, we end at our share of what others did not use."""
    quota, left = Quota(0.5), 100 - others
    quota.saw(f"user-hour-lim:100;user-hour-rem:{left};", NOW)
    while quota.allowance(NOW):
        quota.take(NOW)
        left -= 1
        quota.saw(f"user-hour-lim:100;user-hour-rem:{left};", NOW)
    assert quota.used(NOW) == (100 - others) // 2


def test_our_requests_that_are_an_hour_old_are_free_again() -> None:
    """What falls out of the hour comes back to us, before another answer tells what is left."""
    quota = Quota(0.5, used=[NOW - 3500, NOW - 3400, NOW - 100])
    quota.saw("user-hour-lim:100;user-hour-rem:3;", NOW)  # others used 94
    assert quota.allowance(NOW) == 0
    assert quota.allowance(NOW + 100) == 1
    assert quota.allowance(NOW + 200) == 2


def test_a_request_is_told_before_it_is_sent() -> None:
    """The start of each request taken is handed out for keeping, including its wait."""
    told: list[float] = []
    quota = Quota(0.5, on_use=told.append)
    waits = [quota.take(NOW) for _ in range(3)]
    assert waits == pytest.approx([0, 0.2, 0.4])
    assert told == pytest.approx([NOW, NOW + 0.2, NOW + 0.4])
    assert quota.used(NOW) == 3


def test_a_use_that_cannot_be_kept_is_an_error() -> None:
    """When the use cannot be written down the caller hears of it, and it stays counted."""

    def full_disk(_start: float) -> None:
        raise OSError("disk full")

    quota = Quota(0.5, on_use=full_disk)
    with pytest.raises(OSError, match="disk full"):
        quota.take(NOW)
    assert quota.used(NOW) == 1


@pytest.mark.parametrize(
    ("minute", "wait"),
    [
        ("user-minute-lim:60;", 2.0),
        ("user-minute-lim:60;user-minute-rem:60;", 2.0),
        ("user-minute-lim:60;user-minute-rem:20;", 6.0),
        ("user-minute-lim:60;user-minute-rem:0;", 60.0),
        ("user-minute-lim:100000;", 0.2),
        ("user-minute-rem:1;", 0.2),
        ("", 0.2),
    ],
)
def test_the_minute_sets_the_pace(minute: str, wait: float) -> None:
    """With half of the key ours, we send at half of what the minute allows, and never above five a second."""
    quota = Quota(0.5)
    quota.saw(f"user-hour-lim:3500;user-hour-rem:3500;{minute}", NOW)
    quota.take(NOW)
    assert quota.take(NOW) == pytest.approx(wait)


def test_what_was_left_of_a_minute_is_over_after_it() -> None:
    """The minute's remaining number counts for a minute, its limit for an hour, over answers without it."""
    quota = Quota(0.5)
    quota.saw("user-hour-lim:3500;user-hour-rem:3500;user-minute-lim:60;user-minute-rem:0;", NOW)
    quota.saw("user-hour-lim:3500;user-hour-rem:3500;", NOW)
    quota.take(NOW + 61)
    assert quota.take(NOW + 61) == pytest.approx(2.0)
    quota.take(NOW + 3700)
    assert quota.take(NOW + 3700) == pytest.approx(0.2)


def test_nothing_is_sent_before_a_hold_is_over() -> None:
    """After a hold the wait lasts to its end; a shorter hold does not cut it, and the pace goes on after."""
    quota = Quota(0.5)
    quota.hold(NOW + 30)
    quota.hold(NOW + 5)
    assert quota.held(NOW) == 30
    assert quota.take(NOW) == 30
    assert quota.take(NOW) == pytest.approx(30.2)
    assert quota.held(NOW + 31) == 0


def test_over_our_own_share_says_when_to_go_on() -> None:
    """At the end of our own share the error names the moment the oldest request falls out of the hour."""
    quota = Quota(0.001, used=[NOW - 3000, NOW - 100, NOW - 50])
    with pytest.raises(OverBudget) as caught:
        quota.take(NOW)
    assert "3 requests" in str(caught.value)
    assert "left when last seen: unknown" in str(caught.value)
    assert "becomes free at 08:10:00 UTC, in 10 min" in caught.value.remedy
    assert "raise limits.key_share (now 0.001)" in caught.value.remedy
    assert quota.used(NOW) == 3
    assert quota.take(NOW + 600) == 0


def test_over_the_rest_says_when_to_go_on() -> None:
    """When others left nothing, the error names the moment at which that is an hour ago."""
    quota = Quota(0.5)
    quota.saw("user-hour-lim:3500;user-hour-rem:1;", NOW - 1800)
    with pytest.raises(OverBudget, match=r"left when last seen: 1\. The next .* at 08:30:00 UTC, in 30 min"):
        quota.take(NOW)


def test_over_our_part_of_the_rest_says_when_to_go_on() -> None:
    """With our part of the rest used up, it is our own oldest request that becomes free first."""
    quota = Quota(0.5, used=[NOW - 3000, NOW - 100])
    quota.saw("user-hour-lim:3500;user-hour-rem:2;", NOW)
    with pytest.raises(OverBudget, match=r"becomes free at 08:10:00 UTC, in 10 min"):
        quota.take(NOW)
    assert quota.take(NOW + 600) == 0


def test_a_share_of_less_than_one_request_says_so() -> None:
    """A share that rounds down to nothing never becomes free, and the error does not promise it."""
    with pytest.raises(OverBudget, match="none will become free"):
        Quota(0.0001).take(NOW)


def test_a_clock_that_is_set_back_does_not_block_the_key() -> None:
    """After the clock went back a day, use, hold and headers keep their ages."""
    quota = Quota(0.5)
    quota.saw("user-hour-lim:3500;user-hour-rem:0;user-minute-lim:60;", NOW - 3000)
    quota.hold(NOW + 10)
    assert quota.used(NOW) == 0
    yesterday = NOW - 86_400
    assert quota.held(yesterday) == 10
    assert quota.allowance(yesterday) == 0
    assert quota.allowance(yesterday + 601) == 1750
    assert quota.take(yesterday + 601) == 0
    assert quota.take(yesterday + 601) == pytest.approx(0.2)


def test_use_from_the_future_moves_to_now() -> None:
    """Uses restored with times of a clock that was ahead count for an hour from now at most."""
    quota = Quota(0.5, used=[NOW + 86_400, NOW + 86_390])
    assert quota.used(NOW) == 2
    assert quota.take(NOW + 1) == 0
    assert quota.used(NOW + 3600) == 1


def test_threads_share_one_budget() -> None:
    """However many threads take, they get exactly the allowance between them, each at its own time."""
    starts: list[float] = []
    quota = Quota(0.01, on_use=starts.append)
    refused: list[OverBudget] = []

    def work() -> None:
        for _ in range(10):
            try:
                quota.take(NOW)
            except OverBudget as error:
                refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(starts) == len(set(starts)) == 35
    assert len(refused) == 45
