from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.appstore.jsonapi import Build
from exporter.appstore.payloads.diagnostics import Signature
from exporter.appstore.plan import Key, Past
from exporter.convert.diagnostics import Observation, Versions
from exporter.convert.distributions import Window
from exporter.errors import StateError
from exporter.otlp.encode import Body
from exporter.state import Answered, Item, Source, State, recent_requests
from exporter.state.diagnostics import Diagnostics
from exporter.state.schema import MIGRATIONS
from tests.service.service_world import NOW, SECOND, ended, put

APP = Source("main", "1", "")
BUILD = Source("main", "1", "b")
STEP = Key("1", "logs", "s1")
AT = round(NOW * SECOND)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def store(state: State, source: Source = APP, number: int = 1) -> None:
    """An answer with two gauges, two owed bodies and two windows; the number is in all of it."""
    state.store(
        source,
        "com.example.app",
        b"digest %d" % number,
        AT + number,
        7,
        gauges=[Body(b"g1 %d" % number, 3), Body(b"g2 %d" % number, 2)],
        owed=[Body(b"o1 %d" % number, 1), Body(b"o2 %d" % number, 1)],
        owed_at=AT + number,
        windows={b"s1": Window(b"c %d" % number, AT + number), b"s2": Window(b"c", AT + number)},
        seen=[b"s1", b"s2"],
    )


def build(version: str) -> Build:
    return Build(f"build {version}", "77", version, "IOS", NOW, False, True)


def store_signatures(state: State, version: str, weights: Sequence[tuple[str, float | None]]) -> None:
    """The signatures of a build as a poll stores them."""
    source = Source("main", "1", f"build {version}", "signatures")
    signatures = [Signature(name, "HANGS", "main", weight, None, ()) for name, weight in weights]
    state.store(
        source,
        "com.example.app",
        b"digest",
        AT,
        1,
        gauges=[Body(b"weights", 1)],
        also=lambda execute: Diagnostics(state).put_signatures(execute, source, signatures),
    )


def store_logs(state: State, signature: str, identities: Sequence[bytes], at: int = AT) -> None:
    """The logs of a signature as a poll stores them: an event, a value and a problem."""
    Diagnostics(state).store_logs(
        Source("main", "1", "build 2.0", "signatures"),
        signature,
        "iOS",
        at,
        events=[Body(b"events", 2, "logs")],
        observations=[Observation("m", (("device", "iPhone13,3"),), 1.5)],
        identities=identities,
        problems={"p": Versions("1.0", "2.0")},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / "state.db"


def test_what_is_stored_is_there_after_a_restart(path: Path) -> None:
    """Everything that an answer brought is found again, in its order."""
    with closing(State(path)) as state:
        store(state)
        store(state, BUILD, 2)
    with closing(State(path)) as state:
        assert state.digest(APP) == b"digest 1"
        assert state.digest(Source("main", "2")) is None
        assert state.series(BUILD) == 7
        assert state.answered() == [
            Answered(APP, "com.example.app", AT + 1, 7),
            Answered(BUILD, "com.example.app", AT + 2, 7),
        ]
        assert state.gauges(BUILD) == [Body(b"g1 2", 3), Body(b"g2 2", 2)]
        assert [item.body.data for item in state.outbox()] == [b"o1 1", b"o2 1", b"o1 2", b"o2 2"]
        assert [(item.source, item.stamp, item.sent, item.body) for item in state.snapshot()] == [
            (APP, AT + 1, False, Body(b"g1 1", 3)),
            (APP, AT + 1, False, Body(b"g2 1", 2)),
            (BUILD, AT + 2, False, Body(b"g1 2", 3)),
            (BUILD, AT + 2, False, Body(b"g2 2", 2)),
        ]
        assert state.windows("main", "1")[b"s1"] == Window(b"c 2", AT + 2)


def test_a_new_answer_replaces_gauges_and_adds_to_what_is_owed(path: Path) -> None:
    """Of gauges only the newest count; a distribution is owed until it was taken."""
    with closing(State(path)) as state:
        store(state, number=1)
        state.acknowledge([*state.snapshot(), *list(state.outbox())[:1]])
        store(state, number=2)
        assert [item.body.data for item in state.snapshot()] == [b"g1 2", b"g2 2"]
        assert not any(item.sent for item in state.snapshot())
        assert [item.body.data for item in state.outbox()] == [b"o2 1", b"o1 2", b"o2 2"]


def test_acknowledging_twice_or_too_late_is_harmless(path: Path) -> None:
    """An acknowledgement of rows that a newer answer has replaced touches nothing of it."""
    with closing(State(path)) as state:
        store(state, number=1)
        old = [*state.outbox(), *state.snapshot()]
        store(state, number=2)
        for _ in range(2):
            state.acknowledge(old)
        state.replace_body(old[-1], Body(b"late", 1))
        assert [item.body.data for item in state.snapshot()] == [b"g1 2", b"g2 2"]
        assert [item.sent for item in state.snapshot()] == [False, False]
        assert [item.body.data for item in state.outbox()] == [b"o1 2", b"o2 2"]


def test_what_could_not_be_acknowledged_is_not_owed(path: Path) -> None:
    """Where a full disk keeps a row, it is not sent again; it goes with the next one that can be."""
    refuse = "CREATE TRIGGER full BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'no room'); END"
    with closing(State(path)) as state, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store(state)
        first, second = state.outbox()
        other.execute(refuse)
        with pytest.raises(StateError, match="no room"):
            state.acknowledge([first])
        assert (list(state.outbox()), state.outbox_depth()) == ([second], 2)
        other.execute("DROP TRIGGER full")
        state.acknowledge([])
        assert (list(state.outbox()), state.outbox_depth()) == ([second], 1)


def test_a_reader_sees_no_row_twice_while_another_thread_writes(path: Path) -> None:
    """Rows that go or come while the outbox is being read neither break nor repeat the reading."""
    with closing(State(path)) as state:
        store(state, number=1)
        store(state, number=2)
        seen: list[Item] = []
        for item in state.outbox():
            seen.append(item)
            if len(seen) == 1:
                state.acknowledge([other for other in state.outbox() if other.body.data == b"o2 1"])
                store(state, number=3)
        assert [item.body.data for item in seen] == [b"o1 1", b"o1 2", b"o2 2"]


def test_what_is_not_wanted_any_more_is_forgotten_but_stays_owed(path: Path) -> None:
    """Gauges of an unwanted source are not sent again; its distributions still go out, once."""
    with closing(State(path)) as state:
        store(state, APP, 1)
        store(state, BUILD, 2)
        assert state.keep_only(lambda answered: answered.source == APP) == 1
        assert {item.source for item in state.snapshot()} == {APP}
        assert state.digest(BUILD) is None
        assert state.outbox_depth() == 4


def test_a_series_unseen_for_ninety_days_starts_anew(path: Path) -> None:
    """Windows do not pile up for ever, and one that is seen now and then stays."""
    day = 24 * 3600 * SECOND
    with closing(State(path)) as state:
        for days, seen in ((0, [b"old", b"steady"]), (80, [b"steady"]), (91, [])):
            at = AT + days * day
            windows = {identity: Window(b"c", at) for identity in seen}
            state.store(
                APP, "b", b"d", at, 1, gauges=[], owed=[], owed_at=at, windows=windows, seen=[*windows]
            )
            state.finish_run("main", at / SECOND, b"")
        assert set(state.windows("main", "1")) == {b"steady"}


# A kill or an error at any statement


class Interrupted(Exception):
    """Stands for whatever ends the process."""


def statements_of(path: Path, act: Callable[[State], object]) -> int:
    with closing(State(path)) as state:
        count = 0

        def trace(_statement: str) -> None:
            nonlocal count
            count += 1

        database(state).set_trace_callback(trace)
        act(state)
        database(state).set_trace_callback(None)
    return count


def database(state: State) -> Any:
    return state._db


class FailingDatabase:
    """A connection whose n-th statement from now on does not happen."""

    def __init__(self, db: sqlite3.Connection, after: int, error: BaseException) -> None:
        self._db = db
        self._left = after
        self._error = error

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        if query != "ROLLBACK":
            self._left -= 1
            if self._left < 0:
                self._left = 1 << 30
                raise self._error
        return self._db.execute(query, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


WRITES: dict[str, Callable[[State], object]] = {
    "store": lambda state: store(state, number=2),
    "touch": lambda state: state.touch(APP, AT + 99),
    "acknowledge": lambda state: state.acknowledge([*state.outbox(), *state.snapshot()]),
    "replace_body": lambda state: state.replace_body(next(state.snapshot()), Body(b"mended", 1)),
    "replace_body by nothing": lambda state: state.replace_body(next(state.snapshot()), Body(b"", 0)),
    "keep_only": lambda state: state.keep_only(lambda answered: False),
    "move": lambda state: state.move(
        *("main", "1", "metrics"),
        {AT: AT + 49, AT + 1: AT + 50},
        lambda body: Body(body.data + b" moved", body.points),
    ),
    "add_request": lambda state: state.add_request("KEY", NOW + 7200),
    "finish_run": lambda state: state.finish_run("main", NOW + 1, b"other"),
    "asked": lambda state: state.asked("main", STEP, NOW),
    "refused": lambda state: state.refused("main", STEP, NOW),
    "failed": lambda state: state.failed("main", STEP),
    "took": lambda state: state.took("main", STEP, 3),
    "deferred": lambda state: state.deferred("main", [STEP, Key("1", "logs", "s2")], NOW),
    "hold_builds": lambda state: Diagnostics(state).hold_builds(
        "main", "1", "signatures", [build("2.0")], AT
    ),
    "signatures": lambda state: store_signatures(state, "2.0", [("s1", 0.5)]),
    "touch_problems": lambda state: Diagnostics(state).touch_problems(
        "main", "1", "iOS", {"p": Versions("1.0", "3.0")}, AT
    ),
    "store_logs": lambda state: store_logs(state, "s1", [b"log"]),
    "no_logs": lambda state: Diagnostics(state).no_logs("main", "1", "s0"),
    "flush": lambda state: Diagnostics(state).flush(
        "main", "1", [1], owed=[Body(b"h", 1)], owed_at=AT, windows={b"d": Window(b"c", AT)}
    ),
}


@pytest.mark.parametrize(
    ("write", "error"),
    [*((write, Interrupted()) for write in WRITES), ("store", sqlite3.OperationalError("disk is full"))],
)
def test_a_write_happens_whole_or_not_at_all(path: Path, write: str, error: Exception) -> None:
    """Stopped before any one of its statements, a write leaves the file as it was; it can be done again."""

    def prepared() -> State:
        for file in path.parent.glob("*"):
            file.unlink()
        state = State(path)
        store(state)
        state.add_request("KEY", NOW)
        Diagnostics(state).hold_builds("main", "1", "signatures", [build("1.0")], AT)
        store_signatures(state, "1.0", [("s0", 0.1)])
        store_logs(state, "s3", [b"before"])
        state.asked("main", STEP, NOW - 1)
        state.finish_run("main", NOW, b"settings")
        return state

    with closing(prepared()) as state:
        before = dump(path)
        WRITES[write](state)
        after = dump(path)
    assert before != after
    stopped = 0
    while True:
        with closing(prepared()) as state:
            real = database(state)
            state._db = FailingDatabase(real, stopped, error)  # type: ignore[assignment]
            try:
                WRITES[write](state)
            except (Interrupted, StateError):
                state._db = real
                assert not real.in_transaction
                assert dump(path) == before
                WRITES[write](state)
                assert dump(path) == after
            else:
                break
        stopped += 1
    assert stopped >= 3


def test_a_file_of_the_first_version_is_taken_over(path: Path) -> None:
    """What a file of the first release holds is there after the migration, and is what it was."""
    path.parent.mkdir(parents=True)
    name, script = MIGRATIONS[0]
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
        db.execute("CREATE TABLE migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.execute("INSERT INTO migration VALUES (1, ?)", [name])
        db.execute("INSERT INTO source VALUES ('main', '1', 'com.example.app', 'b', x'01', 5, 7)")
        db.execute("INSERT INTO snapshot VALUES (1, 'main', '1', 'b', 5, 0, 3, x'0a')")
        db.execute("INSERT INTO outbox VALUES (4, 'main', '1', 5, 1, x'0b')")
        db.execute("INSERT INTO window VALUES ('main', '1', x'0c', x'0d', 5, 6)")
        db.execute("INSERT INTO attempt VALUES ('main', '1', 12.5)")
        db.commit()
    with closing(State(path)) as state:
        assert state.answered() == [Answered(BUILD, "com.example.app", 5, 7)]
        assert state.digest(BUILD) == b"\x01"
        assert list(state.outbox()) == [Item(4, "outbox", Source("main", "1"), 5, False, Body(b"\x0b", 1))]
        assert list(state.snapshot()) == [Item(1, "snapshot", BUILD, 5, False, Body(b"\x0a", 3))]
        assert state.windows("main", "1") == {b"\x0c": Window(b"\x0d", 5)}
        assert state.past("main") == {Key("1", "metrics"): Past(12.5, None, None)}


def test_a_signature_is_pending_until_its_logs_are_stored_and_again_when_its_weight_changes(
    path: Path,
) -> None:
    """Logs are due for a signature that is new or of another weight, and for no other, restarts included."""

    def pending() -> set[str]:
        with closing(State(path)) as state:
            return {known.id for known in Diagnostics(state).signatures("main", "1") if known.pending}

    def stored(weights: Sequence[tuple[str, float | None]]) -> None:
        with closing(State(path)) as state:
            store_signatures(state, "2.0", weights)

    stored([("s1", 0.5), ("s2", None)])
    assert pending() == {"s1", "s2"}
    with closing(State(path)) as state:
        store_logs(state, "s1", [b"log"])
        Diagnostics(state).no_logs("main", "1", "s2")
    assert pending() == set()
    stored([("s1", 0.5), ("s2", None), ("s3", 0.1)])
    assert pending() == {"s3"}
    stored([("s1", 0.6), ("s2", 0.2)])
    assert pending() == {"s1", "s2"}


def test_builds_that_are_no_longer_held_leave_nothing_but_what_was_sent(path: Path) -> None:
    """Their signatures and gauges go; the identities of their logs stay for 90 days, problems for 180."""
    day = 24 * 3600 * SECOND
    with closing(State(path)) as state:
        diagnostics = Diagnostics(state)
        diagnostics.hold_builds("main", "1", "signatures", [build("2.0"), build("1.0")], AT)
        assert diagnostics.builds("main", "1") == [build("2.0"), build("1.0")]
        store_signatures(state, "2.0", [("s1", 0.5)])
        store_signatures(state, "1.0", [("s0", 0.5)])
        store_logs(state, "s1", [b"log"])
        store_logs(state, "s1", [b"of a held build"], AT + 365 * day)
        assert diagnostics.seen("main", "1") == {b"log", b"of a held build"}
        state.store(APP, "b", b"d", AT, 1, gauges=[])  # the app is still wanted
        left_at = AT + 400 * day
        diagnostics.hold_builds("main", "1", "signatures", [build("1.0")], left_at)
        assert {known.id for known in diagnostics.signatures("main", "1")} == {"s0"}
        assert {answered.source.build_id for answered in state.answered()} == {"build 1.0", ""}
        assert {item.source.build_id for item in state.snapshot()} == {"build 1.0"}
        for days, seen in ((89, {b"log", b"of a held build"}), (91, set())):
            state.finish_run("main", left_at / SECOND + days * 24 * 3600, b"")
            assert diagnostics.seen("main", "1") == seen
        diagnostics.touch_problems("main", "1", "iOS", {"p": Versions("1.0", "2.0")}, left_at)
        for days, problems in ((179, {"p": Versions("1.0", "2.0")}), (181, {})):
            state.finish_run("main", left_at / SECOND + days * 24 * 3600, b"")
            assert diagnostics.problems("main", "1", "iOS") == problems


def test_observations_wait_until_they_are_flushed(path: Path) -> None:
    """Values are there after a kill, and go in the transaction that puts their histograms into the outbox."""
    with closing(State(path)) as state:
        store_logs(state, "s1", [b"log"])
    with closing(State(path)) as state:
        diagnostics = Diagnostics(state)
        ((row, observation),) = diagnostics.observations("main", "1")
        assert observation == Observation("m", (("device", "iPhone13,3"),), 1.5)
        assert [item.body.signal for item in state.outbox()] == ["logs"]
        windows = {b"d": Window(b"c", AT)}
        diagnostics.flush("main", "1", [row], owed=[Body(b"h", 1)], owed_at=AT, windows=windows)
        assert diagnostics.observations("main", "1") == []
        assert [item.body.signal for item in state.outbox()] == ["logs", "metrics"]
        assert state.windows("main", "1", "signatures") == windows
        assert state.windows("main", "1") == {}


def test_a_step_waits_since_it_was_first_put_off(path: Path) -> None:
    """Putting off again does not restart the wait, asking ends it, and old steps are forgotten."""
    other = Key("1", "overview")
    with closing(State(path)) as state:
        state.deferred("main", [STEP], NOW)
        state.deferred("main", [STEP, other], NOW + 10)
        assert state.past("main") == {STEP: Past(None, NOW, None), other: Past(None, NOW + 10, None)}
        state.asked("main", STEP, NOW + 20)
        state.asked("main", other, NOW + 30)
        state.refused("main", other, NOW + 30)
        state.took("main", other, 3)
        assert state.past("main") == {
            STEP: Past(NOW + 20, None, None),
            other: Past(NOW + 30, None, NOW + 30, 3),
        }
        state.deferred("main", [other], NOW + 40)
        state.asked("main", other, NOW + 50)
        assert state.past("main")[other] == Past(NOW + 50, None, None, 3)
        state.finish_run("main", NOW + 25 + 30 * 24 * 3600, b"")
        assert set(state.past("main")) == {other}


DAY = 24 * 3600.0


def rows_of(path: Path, account: str) -> set[str]:
    """The tables that have rows of an account."""
    tables = ("step", "build", "signature", "run", "log", "problem", "window")
    with closing(sqlite3.connect(path)) as db:
        found = {
            table: db.execute(f"SELECT count(*) FROM {table} WHERE account = ?", [account]).fetchone()[0]
            for table in tables
        }
    return {table for table, rows in found.items() if rows}


def fill(state: State) -> None:
    """A row of each kind."""
    store(state)
    Diagnostics(state).hold_builds("main", "1", "signatures", [build("2.0")], AT)
    store_signatures(state, "2.0", [("s1", 0.5)])
    store_logs(state, "s1", [b"log"])
    state.asked("main", STEP, NOW)


def test_an_account_that_is_no_longer_polled_leaves_nothing(path: Path) -> None:
    """Ninety days after its last poll another's run clears it away; what has an age of its own goes by it."""
    aged = {"log", "problem", "window"}
    with closing(State(path)) as state:
        fill(state)
        state.finish_run("main", NOW, b"")
        state.keep_only(lambda answered: False)  # as at a start without the account
        for days, left in (
            (89, aged | {"step", "build", "signature", "run"}),
            (91, {"log", "problem"}),  # of a build that was held until now
            (92, {"problem"}),
            (181, set[str]()),
        ):
            state.finish_run("other", NOW + days * DAY, b"")
            assert rows_of(path, "main") == left


@pytest.mark.parametrize("last_run", [None, NOW - 91 * DAY])
def test_the_run_of_one_account_leaves_others_that_are_configured(path: Path, last_run: float | None) -> None:
    """Their first poll may still go on, or fail for months; logs of lost signatures are never asked for."""
    with closing(State(path)) as state:
        if last_run:
            state.finish_run("main", last_run, b"")
        fill(state)
        before = rows_of(path, "main")
        state.finish_run("other", NOW, b"")
        assert rows_of(path, "main") == before > {"step", "build", "signature"}


def test_a_copy_in_memory_leaves_the_file_alone(path: Path) -> None:
    """`plan` works on a copy, beside the exporter that holds the file; without a file it begins empty."""
    with closing(State(None, copy_of=path)) as copy:
        assert copy.answered() == []
    with closing(State(path)) as state:
        store(state)
        with closing(State(None, copy_of=path)) as copy:
            assert copy.answered() == state.answered()
            copy.keep_only(lambda answered: False)
        assert len(state.answered()) == 1


KILLED_WRITER = """
import sys
from pathlib import Path
from exporter.state import State
from tests.service.test_state import store
state = State(Path(sys.argv[1]))
print("ready", flush=True)
number = 1
while True:
    number += 1
    store(state, number=number)
    state.acknowledge(state.outbox())
"""


def test_a_killed_writer_leaves_one_answer_whole(path: Path) -> None:
    """After SIGKILL at a random moment digest, gauges and windows are all of the same answer."""
    dice = random.Random(7)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED_WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(dice.uniform(0.0, 0.15))
        finally:
            process.kill()
            process.communicate(timeout=10)
        with closing(State(path)) as state:
            digest = state.digest(APP)
            if digest is None:
                continue
            number = digest.removeprefix(b"digest ")
            assert [item.body.data for item in state.snapshot()] == [b"g1 " + number, b"g2 " + number]
            assert state.windows("main", "1")[b"s1"].content == b"c " + number
            owed = [item.body.data.split() for item in state.outbox()]
            assert [name for name, _ in owed] == [b"o1", b"o2"] * (len(owed) // 2)
            assert [of for name, of in owed if name == b"o1"] == [of for name, of in owed if name == b"o2"]


# Files that cannot be used


def test_two_exporters_do_not_share_a_file(path: Path) -> None:
    """The second is told so, in another process too; after the first has ended it may."""
    with closing(State(path)):
        with pytest.raises(StateError, match=r"state\.db: another exporter is using this state file\."):
            State(path)
        script = (
            "import sys; from pathlib import Path; from exporter.state import State; State(Path(sys.argv[1]))"
        )
        done = ended([sys.executable, "-c", script, str(path)], {}, path.parent)
        assert "StateError" in done.stderr
        assert "another exporter is using this state file" in done.stderr
    State(path).close()


def test_what_opens_badly_lets_the_file_go(path: Path) -> None:
    """After a failed start the file is not locked: mended, it opens."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is not a database, but it is quite long" * 100)
    for _ in range(2):
        with pytest.raises(StateError, match="file is not a database") as caught:
            State(path)
        assert "move it away" in str(caught.value)
        assert str(path) in str(caught.value)
    path.unlink()
    State(path).close()


def test_a_damaged_page_is_an_error_and_no_answer(path: Path) -> None:
    """A file whose inside is damaged says so when it is read or written."""
    with closing(State(path)) as state:
        for number in range(200):
            put(state, Source("main", str(number)), gauges=[Body(b"x" * 3000, 1)])
    data = bytearray(path.read_bytes())
    for start in range(8192, len(data) - 4096, 4096):
        data[start : start + 4096] = random.Random(start).randbytes(4096)
    path.write_bytes(data)

    def use() -> None:
        with closing(State(path)) as state:
            list(state.snapshot())
            store(state)

    with pytest.raises(StateError, match="cannot be used"):
        use()


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    """A downgrade does not guess: it says which version to use, and changes nothing."""
    State(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO migration VALUES (99, 'from the future')")
        db.commit()
    before = dump(path)
    with pytest.raises(StateError, match="newer version"):
        State(path)
    assert dump(path) == before


def test_each_migration_is_recorded_with_its_name(path: Path) -> None:
    """A file knows what was done to it; opening it again does nothing more."""
    for _ in range(2):
        State(path).close()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT * FROM migration").fetchall() == [
                (1, "first"),
                (2, "diagnostics"),
                (3, "costs"),
                (4, "trouble"),
            ]


def test_a_file_being_made_when_the_process_ended_is_made_again(path: Path) -> None:
    """An empty file, or one with nothing but the table of migrations, is filled at the next start."""
    path.parent.mkdir(parents=True)
    path.touch()
    State(path).close()
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.commit()
    with closing(State(path)) as state:
        store(state)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from exporter.errors import StateError
from exporter.state import State
if os.getuid() == 0:
    os.setuid(65534)
try:
    State(Path(sys.argv[1]))
except StateError as error:
    print(error)
"""


@pytest.mark.parametrize("case", ["read-only folder", "read-only file", "a file for a folder", "a folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, case: str) -> None:
    """The error says which file, why, and which setting to change."""
    folder = tmp_path / "state"
    folder.mkdir()
    target = folder / "state.db"
    if case == "a folder":
        target.mkdir()
    elif case == "a file for a folder":
        target.touch()
        target = target / "state.db"
    elif case == "read-only file":
        State(target).close()
        target.chmod(0o444)
        (folder / "state.db.lock").chmod(0o666)
    if case != "a folder":
        folder.chmod(0o555)
    for parent in tmp_path.parents[:2]:
        with suppress(PermissionError):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    done = ended([sys.executable, "-c", UNPRIVILEGED, str(target)], {}, tmp_path)
    folder.chmod(0o755)
    assert done.stderr == ""
    assert str(target) in done.stdout
    assert "state.path" in done.stdout or "folder is writable" in done.stdout


FULL_DISK = """
import resource, sys
from pathlib import Path
from exporter.errors import StateError
from exporter.otlp.encode import Body
from exporter.state import Source, State
from tests.service.service_world import put
state = State(Path(sys.argv[1]))
put(state, Source("main", "1"), gauges=[Body(b"old", 1)], digest=b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    put(state, Source("main", "1"), gauges=[Body(b"x" * 1_000_000, 1)], digest=b"new")
except StateError as error:
    print(error)
print(state.digest(Source("main", "1")), [item.body.data for item in state.snapshot()])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(state, Source("main", "1"), gauges=[Body(b"new", 1)], digest=b"new")
print(state.digest(Source("main", "1")), [item.body.data for item in state.snapshot()])
"""


def test_a_full_disk_keeps_what_was_there(path: Path) -> None:
    """What does not fit is not stored in part; the old answer stays; with room again the new one comes."""
    done = ended([sys.executable, "-c", FULL_DISK, str(path)], {}, Path(__file__).parents[2])
    error, kept, new = done.stdout.splitlines()
    assert str(path) in error
    assert "the disk not full" in error
    assert kept == "b'old' [b'old']"
    assert new == "b'new' [b'new']"


# Requests and runs


def test_only_the_last_hour_of_requests_is_kept(path: Path) -> None:
    """Requests of the last hour are found by key, ascending; older ones go."""
    with closing(State(path)) as state:
        for at in (NOW - 4000, NOW - 10, NOW - 3000, NOW):
            state.add_request("KEY", at)
        state.add_request("OTHER", NOW)
        assert state.requests("KEY", NOW - 3600) == [NOW - 3000, NOW - 10, NOW]
        state.add_request("KEY", NOW + 3000)
        assert state.requests("KEY", 0) == [NOW - 10, NOW, NOW + 3000]


@pytest.mark.parametrize("name", ["state.db", "odd #1 name?.db", "100%25.db"])
def test_looking_at_requests_writes_nothing(tmp_path: Path, name: str) -> None:
    """`check` knows what the running exporter used, and leaves no file behind, whatever the path."""
    path = tmp_path / name
    with closing(State(path)) as state:
        state.add_request("KEY", NOW)
        assert recent_requests(path, "KEY", NOW - 10) == [NOW]
    before = sorted(os.listdir(tmp_path))
    assert recent_requests(path, "KEY", NOW - 10) == [NOW]
    assert recent_requests(path, "KEY", NOW + 10) == []
    assert recent_requests(path, "OTHER", NOW - 10) == []
    assert sorted(os.listdir(tmp_path)) == before


def test_requests_of_a_killed_exporter_are_known(tmp_path: Path) -> None:
    """What was only in the write-ahead log when the process was killed counts, and nothing is written."""
    path = tmp_path / "state.db"
    script = (
        "import os, sys; from pathlib import Path; from exporter.state import State\n"
        "State(Path(sys.argv[1])).add_request('KEY', 7.0); os._exit(9)"
    )
    assert ended([sys.executable, "-c", script, str(path)], {}, tmp_path).returncode == 9
    before = sorted(os.listdir(tmp_path))
    assert recent_requests(path, "KEY", 0) == [7.0]
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("text", [None, b"", b"no database at all" * 100])
def test_requests_are_unknown_where_there_is_no_state(tmp_path: Path, text: bytes | None) -> None:
    """A missing, an empty or a damaged file knows of no requests, and is not made."""
    path = tmp_path / "state.db"
    if text is not None:
        path.write_bytes(text)
    assert recent_requests(path, "KEY", 0) == []
    assert os.listdir(tmp_path) == ([] if text is None else ["state.db"])


def test_the_last_run_of_an_account_is_known(path: Path) -> None:
    """When, and with which settings; None before the first."""
    with closing(State(path)) as state:
        assert state.last_run("main") is None
        state.finish_run("main", NOW, b"a")
        state.finish_run("main", NOW + 1, b"b")
        assert state.last_run("main") == (NOW + 1, b"b")


def test_moved_windows_move_once(path: Path) -> None:
    """When the new time of one window is the old time of another, each moves once, in both tables."""
    with closing(State(path)) as state:
        for number, series in ((1, b"a"), (2, b"b")):
            at = AT + number * SECOND
            owed, windows = [Body(series, 1)], {series: Window(b"c", at)}
            state.store(
                APP, "b", b"d", at, 1, gauges=[], owed=owed, owed_at=at, windows=windows, seen=[series]
            )
        times = {AT + SECOND: AT + 2 * SECOND, AT + 2 * SECOND: AT + 3 * SECOND}
        state.move("main", "1", "metrics", times, lambda b: b)
        assert [(item.body.data, item.stamp) for item in state.outbox()] == [
            (b"a", AT + 2 * SECOND),
            (b"b", AT + 3 * SECOND),
        ]
        assert {key: window.ended_at for key, window in state.windows("main", "1").items()} == {
            b"a": AT + 2 * SECOND,
            b"b": AT + 3 * SECOND,
        }
        assert state.owed_since("metrics") == [("main", "1", [AT + 2 * SECOND, AT + 3 * SECOND])]
