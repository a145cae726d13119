"""What must survive a restart: one SQLite file, one process, one connection that threads share.

source      one row per answer of App Store Connect (an app's metrics, a build's signatures): when, a digest
snapshot    the newest gauges, encoded; re-sent at every heartbeat
outbox      what is owed once: distributions and events; a row goes when the endpoint acknowledged it
window      what was last sent of a distribution, and when its window ended
finding     Apple's insights that were told of
step        when each thing was last asked for, since when it waits, when it was refused
request     the requests that a key made in the last hour
run         the last poll of each account
trouble     how many of its polls failed in a row, and whether its key was refused

What is remembered of diagnostics is in `diagnostics`. Times are nanoseconds since the epoch, but for `step`,
`request` and `run`, which are in seconds. What one answer brings is stored in one transaction: a kill at any
instruction leaves either all of it or nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from exporter.appstore.plan import Key, Past
from exporter.convert.distributions import Window
from exporter.convert.insights import Finding
from exporter.errors import StateError
from exporter.otlp.encode import Body, Signal
from exporter.state.schema import MIGRATIONS

_HOUR = 3600.0
_DAY = 24 * 3600
_FORGET_WINDOWS = 90 * _DAY * 10**9  # a series not seen for 90 days starts anew
FORGET_LOGS = 90 * _DAY * 10**9
FORGET_PROBLEMS = 180 * _DAY * 10**9
_FORGET_STEPS = 30 * _DAY  # what was neither asked for nor waited for is no longer wanted

MOST_EVENTS = 10_000  # requests that an app is owed
MOST_EVENT_BYTES = 200 << 20  # of them, uncompressed

_UNUSABLE = (
    "Check that its folder is writable and the disk not full. If it is damaged, move it away: the next poll "
    "fills a new one; only what was not delivered yet is lost."
)
_FULL = (
    "Make room on its disk, and leave the file where it is: it holds what is still owed. The exporter goes "
    "on by itself."
)

Execute = Callable[..., sqlite3.Cursor]
Kind = Literal["metrics", "signatures", "overview"]
_SOURCE = "(account, app_id, build_id, kind) = (?, ?, ?, ?)"


class Source(NamedTuple):
    """Where an answer belongs; `build_id` is empty for what is the app's own."""

    account: str
    app_id: str
    build_id: str = ""
    kind: Kind = "metrics"


class Trouble(NamedTuple):
    """Of an account: how many of its last polls failed in a row, and whether App Store Connect refuses its
    key, as of the last poll that it answered.
    """

    failed: int = 0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """When a source last answered (ns), and how many series that made."""

    source: Source
    bundle_id: str
    observed_at: int
    series: int


@dataclass(frozen=True, slots=True)
class Item:
    """A stored body: a row of the outbox or of the snapshot. `sent` is always False in the outbox."""

    id: int
    table: str
    source: Source
    stamp: int
    sent: bool
    body: Body


class State:
    """The state file, opened for this process alone.

    Args:
        path: the file; its folder is made if it is missing. None: in memory, for a dry run.
        copy_of: a file whose contents the memory begins with, if there is such a file; it is only read.

    Raises:
        StateError: the file cannot be used: not writable, damaged, from a newer version, or in use.
    """

    def __init__(self, path: Path | None, *, copy_of: Path | None = None) -> None:
        self._named = str(path or copy_of or "state in memory")
        self._lock = threading.RLock()
        self._taken: set[int] = set()  # rows of the outbox that were acknowledged, and are still there
        self._lock_file = _lock_file(path) if path else None
        try:
            with self._errors():
                if path and not path.exists():
                    path.touch(mode=0o600)
                self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
                if copy_of and copy_of.exists():
                    with closing(_read_only(copy_of)) as original:
                        original.backup(self._db)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._migrate()
        except StateError:
            if hasattr(self, "_db"):
                self._db.close()
            self._release()
            raise

    def close(self) -> None:
        """Close the file; further calls fail."""
        with self._lock:
            self._db.close()
            self._release()

    def hold(self) -> AbstractContextManager[object]:
        """Keep other threads away between reading and writing, as long as the context lasts."""
        return self._lock

    # What App Store Connect answered

    def digest(self, source: Source) -> bytes | None:
        """The digest that came with the last good answer of a source."""
        rows = self._rows(f"SELECT digest FROM source WHERE {_SOURCE}", *source)  # noqa: S608
        return bytes(rows[0][0]) if rows else None

    def document(self, source: Source) -> bytes:
        """What was kept of the last good answer of a source beside its points; empty for nothing."""
        rows = self._rows(f"SELECT document FROM source WHERE {_SOURCE}", *source)  # noqa: S608
        return bytes(rows[0][0] or b"") if rows else b""

    def answered(self) -> list[Answered]:
        """All sources that ever answered and are still wanted."""
        rows = self._rows(
            "SELECT account, app_id, build_id, kind, bundle_id, observed_at, series FROM source"
        )
        return [Answered(Source(*row[:4]), *row[4:]) for row in rows]

    def gauges(self, source: Source) -> list[Body]:
        """The newest gauges of a source."""
        query = f"SELECT body, points FROM snapshot WHERE {_SOURCE} ORDER BY id"  # noqa: S608
        return [Body(bytes(body), points) for body, points in self._rows(query, *source)]

    def series(self, source: Source) -> int:
        """How many series the last good answer of a source made."""
        rows = self._rows(f"SELECT series FROM source WHERE {_SOURCE}", *source)  # noqa: S608
        return int(rows[0][0]) if rows else 0

    def series_of_others(self, source: Source) -> int:
        """How many series all other sources of the same app made."""
        query = "SELECT coalesce(sum(series), 0) FROM source WHERE (account, app_id) = (?, ?)"
        return int(self._rows(query, *source[:2])[0][0]) - self.series(source)

    def windows(self, account: str, app_id: str, kind: Kind = "metrics") -> dict[bytes, Window]:
        """What was last sent of each distribution of an app, by its identity."""
        rows = self._rows(
            "SELECT series, content, ended_at FROM window WHERE (account, app_id, kind) = (?, ?, ?)",
            account,
            app_id,
            kind,
        )
        return {bytes(series): Window(bytes(content), ended_at) for series, content, ended_at in rows}

    def findings(self, source: Source) -> list[Finding]:
        """Apple's insights in the last good answer of a source, and those it withdrew lately."""
        rows = self._rows(
            "SELECT record FROM finding WHERE (account, app_id, build_id) = (?, ?, ?)", *source[:3]
        )
        return [Finding.from_json(json.loads(record)) for (record,) in rows]

    def touch(self, source: Source, observed_at: int) -> None:
        """A source gave the same answer again, now: the distributions that were in it are in this one too."""
        with self._transaction() as execute:
            execute(
                "UPDATE window SET seen_at = ? WHERE (account, app_id, kind) = (?, ?, ?)"  # noqa: S608
                f" AND seen_at = (SELECT observed_at FROM source WHERE {_SOURCE})",
                observed_at,
                *source[:2],
                source.kind,
                *source,
            )
            execute(f"UPDATE source SET observed_at = ? WHERE {_SOURCE}", observed_at, *source)  # noqa: S608

    def store(
        self,
        source: Source,
        bundle_id: str,
        digest: bytes,
        observed_at: int,
        series: int,
        *,
        gauges: Iterable[Body],
        owed: Iterable[Body] = (),
        owed_at: int = 0,
        events: Iterable[Body] = (),
        windows: Mapping[bytes, Window] | None = None,
        seen: Iterable[bytes] = (),
        findings: Iterable[Finding] = (),
        document: bytes = b"",
        also: Callable[[Execute], object] = lambda _execute: None,
    ) -> int:
        """All that one answer brings, in one transaction; gives the number of old events given up for it.

        Args:
            gauges: replace the source's snapshot; dated `observed_at`.
            owed: distributions, for the outbox; their windows end at `owed_at`.
            events: for the outbox too; dated `observed_at`.
            windows: of the distributions in `owed`.
            seen: the identities of all distributions in the answer; those long unseen are forgotten.
            findings: replace those of the source.
            document: what is to be kept of the answer itself.
            also: further statements of the same transaction.
        """
        app = source[:2]
        with self._transaction() as execute:
            execute(f"DELETE FROM snapshot WHERE {_SOURCE}", *source)  # noqa: S608
            for body in gauges:
                execute(
                    "INSERT INTO snapshot (account, app_id, build_id, kind, stamp, sent, points, body)"
                    " VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
                    *source,
                    observed_at,
                    body.points,
                    body.data,
                )
            owe(execute, *app, owed, owed_at)
            given_up = owe(execute, *app, events, observed_at)
            remember_windows(execute, source, windows or {}, seen, observed_at)
            if source.kind == "metrics":
                execute("DELETE FROM finding WHERE (account, app_id, build_id) = (?, ?, ?)", *source[:3])
            for finding in findings:
                execute("INSERT INTO finding VALUES (?, ?, ?, ?)", *source[:3], json.dumps(finding))
            execute(
                "INSERT OR REPLACE INTO source"
                " (account, app_id, build_id, kind, bundle_id, digest, observed_at, series, document)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *source,
                bundle_id,
                digest,
                observed_at,
                series,
                document,
            )
            also(execute)
        return given_up

    def keep_only(self, wanted: Callable[[Answered], bool]) -> int:
        """Forget sources that are no longer wanted; gives their number. What they still owe stays owed."""
        unwanted = [answered.source for answered in self.answered() if not wanted(answered)]
        with self._transaction() as execute:
            forget_sources(execute, unwanted)
        return len(unwanted)

    # What is to be delivered

    def outbox(self, *signals: Signal) -> Iterator[Item]:
        """What is owed of these signals, by default of all; oldest first.

        Read one by one, so that a long outbox does not fill the memory.
        """
        wanted = signals or get_args(Signal)
        ids = chain.from_iterable(
            self._rows("SELECT id FROM outbox WHERE signal = ?", signal) for signal in wanted
        )
        columns = "account, app_id, '', 'metrics', stamp, 0, signal"
        return self._items("outbox", columns, sorted({row_id for (row_id,) in ids} - self._taken))

    def snapshot(self) -> Iterator[Item]:
        """The newest gauges of all sources."""
        ids = [row_id for (row_id,) in self._rows("SELECT id FROM snapshot ORDER BY id")]
        return self._items("snapshot", "account, app_id, build_id, kind, stamp, sent, 'metrics'", ids)

    def acknowledge(self, items: Collection[Item]) -> None:
        """The endpoint took these: outbox rows go, snapshot rows are no longer new.

        What cannot be written down, as on a full disk, is remembered and written down with the next: events
        that were sent again at each heartbeat until there is room would come as often.
        """
        with self._lock:
            self._taken |= {item.id for item in items if item.table == "outbox"}
            with self._transaction() as execute:
                for row_id in self._taken:
                    execute("DELETE FROM outbox WHERE id = ?", row_id)
                for item in items:
                    if item.table == "snapshot" and not item.sent:
                        execute("UPDATE snapshot SET sent = 1 WHERE id = ?", item.id)
            self._taken.clear()

    def replace_body(self, item: Item, body: Body) -> None:
        """A stored body without the points that the endpoint will never take; without any, it goes."""
        with self._transaction() as execute:
            if not body.points:
                execute(f"DELETE FROM {item.table} WHERE id = ?", item.id)  # noqa: S608
            execute(
                f"UPDATE {item.table} SET body = ?, points = ? WHERE id = ?",  # noqa: S608
                body.data,
                body.points,
                item.id,
            )

    def outbox_depth(self) -> int:
        """How many items are owed."""
        return int(self._rows("SELECT count(*) FROM outbox")[0][0])

    def owed_since(self, signal: Signal) -> list[tuple[str, str, list[int]]]:
        """(account, app id, the times of what is owed, ascending) for each app that is owed something."""
        owed: dict[tuple[str, str], list[int]] = {}
        for account, app_id, stamp in self._rows(
            "SELECT DISTINCT account, app_id, stamp FROM outbox WHERE signal = ? ORDER BY stamp", signal
        ):
            owed.setdefault((account, app_id), []).append(stamp)
        return [(*app, stamps) for app, stamps in owed.items()]

    def move(
        self,
        account: str,
        app_id: str,
        signal: Signal,
        times: Mapping[int, int],
        restamp: Callable[[Body], Body],
    ) -> None:
        """Give what an app is owed new times: old time → new time, bodies by `restamp`.

        The windows of distributions move along with the metrics.
        """
        app = account, app_id
        with self._transaction() as execute:
            rows = execute(
                "SELECT id, stamp FROM outbox WHERE (account, app_id, signal) = (?, ?, ?)", *app, signal
            ).fetchall()
            for row_id, stamp in rows:
                if stamp in times:
                    ((points, body),) = execute("SELECT points, body FROM outbox WHERE id = ?", row_id)
                    data = restamp(Body(bytes(body), points, signal)).data
                    execute("UPDATE outbox SET stamp = ?, body = ? WHERE id = ?", times[stamp], data, row_id)
            for old, new in sorted(times.items(), reverse=True) if signal == "metrics" else ():
                # From the newest on, so that none is moved twice.
                execute(
                    "UPDATE window SET ended_at = ? WHERE (account, app_id, ended_at) = (?, ?, ?)",
                    new,
                    *app,
                    old,
                )

    # Steps, requests and runs

    def past(self, account: str) -> dict[Key, Past]:
        """What became of the steps of an account."""
        rows = self._rows(
            "SELECT app_id, what, id, asked_at, waits_since, refused_at, cost, failed FROM step"
            " WHERE account = ?",
            account,
        )
        return {
            Key(*key): Past(asked_at, waits_since, refused_at, cost, bool(failed))
            for *key, asked_at, waits_since, refused_at, cost, failed in rows
        }

    def asked(self, account: str, key: Key, at: float) -> None:
        """Something is about to be asked for: it waits no longer."""
        with self._transaction() as execute:
            execute(
                "INSERT INTO step (account, app_id, what, id, asked_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE"
                " SET asked_at = excluded.asked_at, waits_since = NULL, refused_at = NULL, failed = 0",
                account,
                *key,
                at,
            )

    def took(self, account: str, key: Key, requests: int) -> None:
        """How many requests something that was asked for took."""
        with self._transaction() as execute:
            execute(
                "INSERT INTO step (account, app_id, what, id, cost) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET cost = excluded.cost",
                account,
                *key,
                requests,
            )

    def refused(self, account: str, key: Key, at: float) -> None:
        """App Store Connect does not offer what was just asked for, or sent what nobody can read."""
        with self._transaction() as execute:
            execute(
                "UPDATE step SET refused_at = ? WHERE (account, app_id, what, id) = (?, ?, ?, ?)",
                at,
                account,
                *key,
            )

    def failed(self, account: str, key: Key) -> None:
        """There was no answer to what was just asked for."""
        with self._transaction() as execute:
            execute(
                "UPDATE step SET failed = 1 WHERE (account, app_id, what, id) = (?, ?, ?, ?)", account, *key
            )

    def deferred(self, account: str, keys: Iterable[Key], at: float) -> None:
        """These have to wait; those that wait already do so since then."""
        with self._transaction() as execute:
            for key in keys:
                execute(
                    "INSERT INTO step (account, app_id, what, id, waits_since) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE"
                    " SET waits_since = coalesce(waits_since, excluded.waits_since)",
                    account,
                    *key,
                    at,
                )

    def add_request(self, key_id: str, at: float) -> None:
        """A request is about to be sent with this key."""
        with self._transaction() as execute:
            execute("DELETE FROM request WHERE at < ?", at - _HOUR)
            execute("INSERT INTO request VALUES (?, ?)", key_id, at)

    def requests(self, key_id: str, since: float) -> list[float]:
        """When requests were sent with this key, ascending."""
        rows = self._rows("SELECT at FROM request WHERE key_id = ? AND at >= ? ORDER BY at", key_id, since)
        return [at for (at,) in rows]

    def finish_run(self, account: str, at: float, settings: bytes) -> None:
        """An account was polled, with settings of this digest."""
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?)", account, at, settings)
            execute(
                "DELETE FROM step WHERE account = ? AND max(coalesce(asked_at, 0), coalesce(waits_since, 0))"
                " < ?",
                account,
                at - _FORGET_STEPS,
            )
            execute(
                "UPDATE log SET seen_at = ? WHERE account = ? AND build_id IN (SELECT id FROM build"
                " WHERE account = ? AND app_id NOT IN (SELECT app_id FROM source WHERE account = ?))",
                round(at * 10**9),
                account,
                account,
                account,
            )
            for table in ("signature", "build"):  # of apps that are no longer wanted
                execute(
                    f"DELETE FROM {table} WHERE account = ?"  # noqa: S608
                    " AND app_id NOT IN (SELECT app_id FROM source WHERE account = ?)",
                    account,
                    account,
                )
            self._forget(execute, round(at * 10**9))

    def _forget(self, execute: Execute, now: int) -> None:
        """What was not seen for long, whichever account it is of."""
        execute("DELETE FROM window WHERE seen_at < ?", now - _FORGET_WINDOWS)
        execute("DELETE FROM problem WHERE seen_at < ?", now - FORGET_PROBLEMS)
        execute(
            "DELETE FROM log WHERE seen_at < ? AND build_id NOT IN"
            " (SELECT id FROM build WHERE kind = 'signatures')",
            now - FORGET_LOGS,
        )
        execute("DELETE FROM observation WHERE (account, app_id) NOT IN (SELECT account, app_id FROM log)")
        gone = (  # no longer configured; one whose first poll goes on has no run, one that fails has sources
            "account IN (SELECT account FROM run WHERE at < ?)"
            " AND account NOT IN (SELECT account FROM source)"
        )
        for table in ("step", "build", "signature", "trouble", "run"):
            execute(f"DELETE FROM {table} WHERE {gone}", (now - FORGET_LOGS) / 10**9)  # noqa: S608

    def troubles(self) -> dict[str, Trouble]:
        """What `set_trouble` was told last of each account."""
        rows = self._rows("SELECT account, failed, refused FROM trouble")
        return {account: Trouble(failed, bool(refused)) for account, failed, refused in rows}

    def set_trouble(self, account: str, trouble: Trouble) -> None:
        """How the last polls of an account went."""
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO trouble VALUES (?, ?, ?)", account, *trouble)

    def last_run(self, account: str) -> tuple[float, bytes] | None:
        """When an account was last polled, and the digest of the settings then."""
        rows = self._rows("SELECT at, settings FROM run WHERE account = ?", account)
        return (rows[0][0], bytes(rows[0][1])) if rows else None

    # SQLite

    def _items(self, table: str, columns: str, ids: Iterable[int]) -> Iterator[Item]:
        for row_id in ids:
            query = f"SELECT {columns}, body, points FROM {table} WHERE id = ?"  # noqa: S608
            for *source, stamp, sent, signal, body, points in self._rows(query, row_id):
                yield Item(
                    row_id, table, Source(*source), stamp, bool(sent), Body(bytes(body), points, signal)
                )

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock, self._errors():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Execute]:
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield lambda query, *values: self._db.execute(query, values)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _migrate(self) -> None:
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL)"
        )
        done = self._db.execute("SELECT count(*) FROM migration").fetchone()[0]
        if done > len(MIGRATIONS):
            raise StateError(
                "the file was written by a newer version of perfpower-exporter",
                remedy="Use that version again, or another state file.",
                where=self._named,
            )
        for number, (name, script) in enumerate(MIGRATIONS[done:], start=done + 1):
            self._db.executescript(
                f"BEGIN IMMEDIATE; {script}; INSERT INTO migration VALUES ({number}, '{name}'); COMMIT;"  # noqa: S608
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            raise StateError(
                f"the state file cannot be used ({error})",
                remedy=_FULL if full else _UNUSABLE,
                where=self._named,
            ) from error

    def _release(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def forget_sources(execute: Execute, sources: Iterable[Source]) -> None:
    """Delete what is stored of sources, but for what they owe."""
    for source in sources:
        for table in ("source", "snapshot"):
            execute(f"DELETE FROM {table} WHERE {_SOURCE}", *source)  # noqa: S608
        if source.kind == "metrics":
            execute("DELETE FROM finding WHERE (account, app_id, build_id) = (?, ?, ?)", *source[:3])


def owe(execute: Execute, account: str, app_id: str, bodies: Iterable[Body], stamp: int) -> int:
    """Put bodies into the outbox; gives the number of events that were given up.

    Events may be refused for months, by a Collector without a pipeline for logs. Of an app's bodies of
    events, one for each signature and poll, the newest MOST_EVENTS stay, or fewer where these have more than
    MOST_EVENT_BYTES; the rest is given up.
    """
    owed = list(bodies)
    for body in owed:
        execute(
            "INSERT INTO outbox (account, app_id, stamp, points, body, signal) VALUES (?, ?, ?, ?, ?, ?)",
            account,
            app_id,
            stamp,
            body.points,
            body.data,
            body.signal,
        )
    return _give_up(execute, account, app_id) if any(body.signal == "logs" for body in owed) else 0


def _give_up(execute: Execute, account: str, app_id: str) -> int:
    """Delete the oldest events beyond what may be owed; gives their number."""
    rows = execute(
        "SELECT id, points, length(body) FROM outbox WHERE (account, app_id, signal) = (?, ?, 'logs')"
        " ORDER BY id DESC",
        account,
        app_id,
    ).fetchall()
    sizes = accumulate(size for _, _, size in rows)
    too_old = [
        (row_id, events)
        for place, ((row_id, events, _), size) in enumerate(zip(rows, sizes, strict=True))
        if place >= MOST_EVENTS or (size > MOST_EVENT_BYTES and place > 0)
    ]
    for row_id, _ in too_old:
        execute("DELETE FROM outbox WHERE id = ?", row_id)
    return sum(events for _, events in too_old)


def remember_windows(
    execute: Execute, source: Source, windows: Mapping[bytes, Window], seen: Iterable[bytes], at: int
) -> None:
    """The windows of distributions that are owed now, and which distributions there still are."""
    app = source[:2]
    for identity, window in windows.items():
        execute(
            "INSERT OR REPLACE INTO window VALUES (?, ?, ?, ?, ?, ?, ?)",
            *app,
            identity,
            *window,
            at,
            source.kind,
        )
    for identity in seen:
        execute(
            "UPDATE window SET seen_at = ? WHERE (account, app_id, series) = (?, ?, ?)", at, *app, identity
        )


def recent_requests(path: Path, key_id: str, since: float) -> list[float]:
    """The requests that an exporter made with a key, without writing to its state file.

    None are known where there is no file, or where it cannot be read.
    """
    query = "SELECT at FROM request WHERE key_id = ? AND at >= ? ORDER BY at"
    try:
        return [at for (at,) in _look(path, query, key_id, since)] if path.is_file() else []
    except sqlite3.Error:
        return []


def unreadable(path: Path) -> str:
    """Why an existing file is no state file, without writing to it; empty if it is one, or missing."""
    try:
        if path.exists():
            _look(path, "SELECT count(*) FROM migration")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _look(path: Path, query: str, *values: object) -> list[Any]:
    with closing(_read_only(path)) as db:
        return db.execute(query, values).fetchall()


def _read_only(path: Path) -> sqlite3.Connection:
    # Nobody has it open: reading it as it stands spares SQLite the two files that it makes beside a WAL.
    alone = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True)


def _lock_file(path: Path) -> int:
    """An exclusive lock beside the file: two exporters on one state file would send everything twice."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise StateError(
            f"the state file cannot be opened or made ({error.strerror})",
            remedy="Give a folder that the exporter may write to: state.path, or PERFPOWER_STATE.",
            where=str(path),
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StateError(
            "another exporter is using this state file",
            remedy="Stop it first, or give this one a state file of its own: state.path, or PERFPOWER_STATE.",
            where=str(path),
        ) from None
    return descriptor
