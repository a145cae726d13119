"""What the status keeps of each account's polls, for the alerts on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter.errors import (
    AgreementMissing,
    AppStoreError,
    CredentialsRefused,
    NotFound,
    RateLimited,
    RoleTooSmall,
    Unavailable,
)
from exporter.report import CycleReport
from exporter.state import State
from exporter.status import Status
from tests.service.service_world import Clock, settings_of

SETTINGS = settings_of({"ASC_KEY_ID": "KEY", "ASC_ISSUER_ID": "ISSUER", "ASC_PRIVATE_KEY": "hush-hush"})
REFUSED, AWAY, GONE = CredentialsRefused("401"), Unavailable("no route"), NotFound("404")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def status(path: Path) -> Iterator[Status]:
    with closing(State(path)) as state:
        yield Status(SETTINGS, state, Clock())


def polled(status: Status, *failures: AppStoreError, apps: int = 0) -> None:
    status.polled(CycleReport("main", apps=apps, failures=list(failures)))


def said(status: Status) -> tuple[float, float]:
    """How many polls failed in a row, and whether the key is refused."""
    (failed,), (refused,) = status.failed_in_a_row(), status.key_refused()
    assert failed[1] == refused[1] == {"account": "main"}
    return failed[0], refused[0]


def test_nothing_is_said_of_an_account_that_was_never_polled(status: Status) -> None:
    """A 0 would say that all is well."""
    assert (list(status.failed_in_a_row()), list(status.key_refused())) == ([], [])


def test_polls_that_fail_are_counted_until_one_does_not(status: Status) -> None:
    """Also those that got some answers, and those that broke off; a good one begins anew."""
    polled(status, GONE, apps=5)
    assert said(status) == (1, 0)
    status.poll_broke("main", "bug")
    assert said(status) == (2, 0)
    polled(status, apps=6)
    assert said(status) == (0, 0)


def test_a_key_is_refused_until_an_answer_says_otherwise(status: Status) -> None:
    """A network that is away, or a bug, says nothing of the key."""
    polled(status, REFUSED)
    assert said(status) == (1, 1)
    polled(status, AWAY)
    status.poll_broke("main", "state")
    assert said(status) == (3, 1)
    polled(status, AWAY, apps=1)  # their list came
    assert said(status) == (4, 0)
    polled(status, REFUSED)
    polled(status)  # nothing was due, and nothing failed
    assert said(status) == (0, 0)


@pytest.mark.parametrize("answer", [GONE, RoleTooSmall("403"), AgreementMissing("403"), RateLimited("429")])
def test_what_is_answered_to_no_refused_key_says_that_it_is_none(
    status: Status, answer: AppStoreError
) -> None:
    """A new key whose role is too small is another trouble."""
    polled(status, REFUSED)
    polled(status, answer)
    assert said(status) == (2, 0)
    polled(status, REFUSED, answer)
    assert said(status) == (3, 1)


def test_it_is_known_after_a_restart(path: Path) -> None:
    """An alert must not end because the exporter was restarted."""
    with closing(State(path)) as state:
        first = Status(SETTINGS, state, Clock())
        polled(first, REFUSED)
        polled(first, REFUSED)
    with closing(State(path)) as state:
        assert said(Status(SETTINGS, state, Clock())) == (2, 1)


def test_an_account_that_is_gone_from_the_configuration_is_not_told_of(path: Path) -> None:
    """What was remembered of it stays in the file, and says nothing any more."""
    with closing(State(path)) as state:
        first = Status(SETTINGS, state, Clock())
        first.poll_broke("another", "bug")
        polled(first)
        assert said(first) == (0, 0)


def test_a_state_that_cannot_be_written_is_no_reason_to_know_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk the number is right until the restart."""
    with closing(State(path)) as state:
        status = Status(SETTINGS, state, Clock())
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE trouble")
            other.commit()
        status.poll_broke("main", "state")
        assert said(status) == (1, 0)
