from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.appstore.discovery import complete, newest_versions
from exporter.appstore.jsonapi import Build


def build(
    build_id: str,
    version: str,
    uploaded_at: float | None = None,
    *,
    platform: str = "IOS",
    released: bool | None = True,
    expired: bool = False,
) -> Build:
    return Build(build_id, build_id, version, platform, uploaded_at, expired, released)


def newest(builds: list[Build], versions: int = 3, testflight: bool = False) -> list[str]:
    return [found.id for found in newest_versions(builds, versions=versions, testflight=testflight)]


def test_the_newest_versions_have_a_build_each() -> None:
    """Of each version the last uploaded released build stands for it; older versions are left out."""
    builds = [
        build("e", "2.1", 50),
        build("d", "2.0", 40),
        build("c", "2.0", 30),
        build("b", "1.1", 20),
        build("a", "1.0", 10),
    ]
    assert newest(builds) == ["e", "d", "b"]
    assert newest(builds, versions=1) == ["e"]


@pytest.mark.parametrize("versions", [0, -1])
def test_no_versions_are_no_builds(versions: int) -> None:
    """When nothing is wanted there is nothing."""
    assert newest([build("a", "1.0", 10)], versions=versions) == []


def test_each_platform_has_its_versions() -> None:
    """The same version on two platforms is two; platforms come in the same order whoever uploaded last."""
    mac, ios = build("m", "2.0", 20, platform="MAC_OS"), build("i", "2.0", 10)
    other = [build("n", "1.0", 5, platform="MAC_OS"), build("j", "1.0", 4)]
    assert newest([mac, ios, *other], versions=1) == ["i", "m"]
    assert newest([mac, ios, *other], versions=2) == ["i", "j", "m", "n"]


def test_a_hotfix_of_an_old_version_is_not_the_newest() -> None:
    """Versions are ordered by number, as those of the metrics are: 2.0 before 1.9.1, and 1.10 before 1.9."""
    assert newest([build("b", "1.9.1", 20), build("a", "2.0", 10)]) == ["a", "b"]
    assert newest([build("b", "1.9.1", 20), build("a", "2.0", 10)], versions=1) == ["a"]
    assert newest([build("b", "1.9", 20), build("a", "1.10", 10)]) == ["a", "b"]


def test_testflight_builds_count_on_request_only() -> None:
    """A version that was never released counts while it is tested, if that is wanted."""
    builds = [
        build("c", "3.0", 30, released=False),
        build("b", "2.0", 20, released=False, expired=True),
        build("a", "1.0", 10),
    ]
    assert newest(builds) == ["a"]
    assert newest(builds, testflight=True) == ["c", "a"]


@pytest.mark.parametrize("testflight", [True, False])
def test_a_released_version_is_represented_by_what_was_released(testflight: bool) -> None:
    """Builds that were only tested, uploaded before or after the released one, do not take its place."""
    builds = [
        build("c", "2.0", 30, released=False),
        build("b", "2.0", 20),
        build("a", "2.0", 10, released=False),
    ]
    assert newest(builds, testflight=testflight) == ["b"]


def test_a_released_build_counts_after_it_expired() -> None:
    """TestFlight's ninety days say nothing about the users of the App Store."""
    assert newest([build("a", "1.0", 10, expired=True)]) == ["a"]


def test_what_nobody_knows_counts_as_released() -> None:
    """Where a proxy strips the relationship, the last build of each version stands for it."""
    builds = [
        build("c", "2.0", 30, released=None),
        build("b", "2.0", 20, released=None, expired=True),
        build("a", "1.0", 10, released=None),
    ]
    assert newest(builds) == ["c", "a"]


def test_a_known_release_goes_before_an_unknown_one() -> None:
    """A version is released with one build: when that is known, the others were not."""
    builds = [
        build("c", "2.0", 30, released=None),
        build("b", "2.0", 20),
        build("a", "2.0", 10, released=None),
    ]
    assert newest(builds) == ["b"]


@pytest.mark.parametrize(("version", "platform"), [("", "IOS"), ("1.0", ""), ("", "")])
def test_a_build_without_version_or_platform_is_left_out(version: str, platform: str) -> None:
    """Nobody could tell what its data is of, and it hides no other."""
    builds = [build("b", version, 20, platform=platform), build("a", "1.0", 10)]
    assert newest(builds) == ["a"]
    assert complete(builds, versions=1, testflight=False)


@pytest.mark.parametrize(
    ("times", "stands"),
    [
        ((None, None, None), "a"),
        ((None, 20.0, 10.0), "a"),
        ((30.0, None, 10.0), "a"),
        ((10.0, 20.0, 20.0), "b"),
        ((10.0, None, 20.0), "c"),
    ],
)
def test_without_upload_times_the_list_has_the_order(times: tuple[float | None, ...], stands: str) -> None:
    """An unknown time leaves a build where it was listed; the last uploaded one stands for its version."""
    assert newest([build(name, "1.0", at) for name, at in zip("abc", times, strict=True)]) == [stands]


def test_a_listing_is_complete_when_every_platform_is() -> None:
    """As long as one of the platforms seen lacks a version, there may be more behind."""
    builds = [build("d", "2.0", 40), build("c", "1.0", 30), build("b", "2.0", 20, platform="MAC_OS")]
    assert not complete(builds, versions=2, testflight=False)
    builds.append(build("a", "1.0", 10, platform="MAC_OS"))
    assert complete(builds, versions=2, testflight=False)
    assert not complete(builds, versions=3, testflight=False)


def test_builds_that_do_not_count_do_not_complete() -> None:
    """A platform of which only test builds were seen so far has its releases further back."""
    builds = [build("b", "2.0", 20, released=False, platform="TV_OS"), build("a", "1.0", 10)]
    assert not complete(builds, versions=1, testflight=False)
    assert complete(builds, versions=1, testflight=True)


def test_nothing_is_not_complete() -> None:
    """A page without a usable build says nothing about those behind it."""
    assert not complete([], versions=1, testflight=False)
    assert not complete([build("a", "", 10)], versions=1, testflight=False)


BUILDS = st.lists(
    st.builds(
        Build,
        id=st.uuids().map(str),
        number=st.just("1"),
        version=st.sampled_from(["", "1.0", "1.1", "2.0"]),
        platform=st.sampled_from(["", "IOS", "MAC_OS"]),
        uploaded_at=st.floats(0, 9),
        expired=st.booleans(),
        released=st.sampled_from([True, False, None]),
    ),
    max_size=12,
)


@given(BUILDS, st.integers(0, 4), st.booleans())
def test_what_is_found_holds_for_any_builds(builds: list[Build], versions: int, testflight: bool) -> None:
    """Each version once, at most so many a platform, newest first, and none that does not count."""
    found = newest_versions(builds, versions=versions, testflight=testflight)
    assert len({(one.platform, one.version) for one in found}) == len(found)
    assert all(one.released is not False or (testflight and not one.expired) for one in found)
    for platform in ("IOS", "MAC_OS"):
        numbers = [one.version for one in found if one.platform == platform]
        assert len(numbers) <= versions
        assert numbers == sorted(numbers, reverse=True)
    assert [one.platform for one in found] == sorted(one.platform for one in found)


@given(BUILDS, st.booleans(), st.randoms())
def test_the_order_of_the_list_does_not_matter(
    builds: list[Build], testflight: bool, chance: random.Random
) -> None:
    """Where all upload times are known and differ, pages may come in any order."""
    dated = list({one.uploaded_at: one for one in builds}.values())
    shuffled = chance.sample(dated, len(dated))
    assert newest(dated, testflight=testflight) == newest(shuffled, testflight=testflight)
