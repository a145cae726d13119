"""What is remembered of diagnostics, in the state file.

build         the builds whose signatures (or metrics) are collected, in the order of discovery
signature     their signatures, with the weight that each had when its logs were downloaded
log           the identities of the logs that were counted and sent
problem       in which versions of a platform a problem was seen first and last
observation   values out of logs that wait to become histograms at the end of the poll

A log's identity is forgotten 90 days after its build was last collected, or after the log was last seen if
that was later: Apple may hand it over again. A problem is forgotten 180 days after it was last seen. Both by
`State.finish_run`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from exporter.appstore.jsonapi import Build
from exporter.appstore.payloads.diagnostics import Signature
from exporter.convert.diagnostics import Observation, Versions
from exporter.convert.distributions import Window
from exporter.otlp.encode import Body
from exporter.state.state import Execute, Kind, Source, State, owe, remember_windows

_APP = "(account, app_id) = (?, ?)"


@dataclass(frozen=True, slots=True)
class Known:
    """A signature of a build; `logged` once its logs were downloaded, `pending` while they have to be, being
    new or of new weight."""

    build_id: str
    id: str
    type: str
    text: str
    weight: float | None
    logged: bool
    pending: bool


class Diagnostics:
    """The part of the state file that is about diagnostics; every method is of one account and app."""

    def __init__(self, state: State) -> None:
        self._state = state

    # Builds

    def builds(self, account: str, app_id: str, kind: Kind = "signatures") -> list[Build]:
        """The builds whose signatures (or metrics) are collected, as they were discovered."""
        rows = self._state._rows(
            "SELECT record FROM build WHERE (account, app_id, kind) = (?, ?, ?) ORDER BY place",
            account,
            app_id,
            kind,
        )
        return [Build(*json.loads(record)) for (record,) in rows]

    def hold_builds(self, account: str, app_id: str, kind: Kind, builds: Sequence[Build], at: int) -> None:
        """Collect the signatures (or metrics) of these builds and no others, whose gauges are forgotten.

        The identities of logs are kept for the stated time from now on (`at`, in nanoseconds), should a build
        come back: when they were downloaded may be long ago.
        """
        held = "SELECT id FROM build WHERE (account, app_id, kind) = (?, ?, ?)"
        of_kind = account, app_id, kind
        with self._state._transaction() as execute:
            before = {build_id for (build_id,) in execute(held, *of_kind)}
            execute("DELETE FROM build WHERE (account, app_id, kind) = (?, ?, ?)", *of_kind)
            for place, build in enumerate(builds):
                record = json.dumps(astuple(build))
                execute("INSERT INTO build VALUES (?, ?, ?, ?, ?, ?)", *of_kind, build.id, place, record)
            for table in ("source", "snapshot"):
                execute(
                    f"DELETE FROM {table} WHERE (account, app_id, kind) = (?, ?, ?)"  # noqa: S608
                    f" AND build_id <> '' AND build_id NOT IN ({held})",
                    *of_kind,
                    *of_kind,
                )
            if kind == "signatures":
                for build_id in before - {build.id for build in builds}:
                    of_build = account, app_id, build_id
                    execute("DELETE FROM signature WHERE (account, app_id, build_id) = (?, ?, ?)", *of_build)
                    execute(
                        "UPDATE log SET seen_at = ? WHERE (account, app_id, build_id) = (?, ?, ?)",
                        at,
                        *of_build,
                    )

    # Signatures

    def signatures(self, account: str, app_id: str) -> list[Known]:
        """The signatures of all builds."""
        rows = self._state._rows(
            "SELECT build_id, id, type, text, weight, logged, NOT logged OR logged_weight IS NOT weight"
            " FROM signature WHERE (account, app_id) = (?, ?)",
            account,
            app_id,
        )
        return [
            Known(build_id, signature_id, kind, text, weight, bool(logged), bool(pending))
            for build_id, signature_id, kind, text, weight, logged, pending in rows
        ]

    def put_signatures(self, execute: Execute, source: Source, signatures: Iterable[Signature]) -> None:
        """A build's signatures as they are now, in the transaction of their gauges."""
        build = source[:3]
        before = {
            row[0]: row[1:]
            for row in execute(
                "SELECT id, logged, logged_weight FROM signature"
                " WHERE (account, app_id, build_id) = (?, ?, ?)",
                *build,
            )
        }
        execute("DELETE FROM signature WHERE (account, app_id, build_id) = (?, ?, ?)", *build)
        for item in signatures:
            logged = before.get(item.id, (0, None))
            execute(
                "INSERT INTO signature VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *build,
                item.id,
                item.type,
                item.text,
                item.weight,
                *logged,
            )

    # Problems

    def problems(self, account: str, app_id: str, platform: str) -> dict[str, Versions]:
        """In which versions each problem was seen first and last."""
        rows = self._state._rows(
            "SELECT problem, first_version, last_version FROM problem"
            " WHERE (account, app_id, platform) = (?, ?, ?)",
            account,
            app_id,
            platform,
        )
        return {problem: Versions(first, last) for problem, first, last in rows}

    def touch_problems(
        self, account: str, app_id: str, platform: str, problems: Mapping[str, Versions], at: int
    ) -> None:
        """Problems seen now, in a transaction of their own."""
        with self._state._transaction() as execute:
            self._put_problems(execute, account, app_id, platform, problems, at)

    def _put_problems(
        self,
        execute: Execute,
        account: str,
        app_id: str,
        platform: str,
        problems: Mapping[str, Versions],
        at: int,
    ) -> None:
        """Problems seen now, with the versions known by now."""
        for problem, versions in problems.items():
            execute(
                "INSERT OR REPLACE INTO problem VALUES (?, ?, ?, ?, ?, ?, ?)",
                account,
                app_id,
                platform,
                problem,
                *versions,
                at,
            )

    # Logs

    def seen(self, account: str, app_id: str) -> set[bytes]:
        """The identities of the logs that were counted and sent."""
        rows = self._state._rows(f"SELECT identity FROM log WHERE {_APP}", account, app_id)  # noqa: S608
        return {bytes(identity) for (identity,) in rows}

    def store_logs(
        self,
        source: Source,
        signature_id: str,
        platform: str,
        observed_at: int,
        *,
        events: Iterable[Body],
        observations: Iterable[Observation],
        identities: Iterable[bytes],
        problems: Mapping[str, Versions],
    ) -> int:
        """All that the logs of a signature bring, in one transaction; gives the number of old events given up
        for it. `source` is its build's signatures.

        Args:
            events: dated `observed_at`.
            observations: wait for `flush`.
            identities: of all logs in the answer, new or not.
            problems: what the logs are about.
        """
        account, app_id, build_id = source[:3]
        with self._state._transaction() as execute:
            given_up = owe(execute, account, app_id, events, observed_at)
            for item in observations:
                execute(
                    "INSERT INTO observation (account, app_id, metric, attributes, value)"
                    " VALUES (?, ?, ?, ?, ?)",
                    account,
                    app_id,
                    item.metric,
                    json.dumps(item.attributes),
                    item.value,
                )
            for identity in identities:
                execute(
                    "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?)",
                    account,
                    app_id,
                    identity,
                    build_id,
                    observed_at,
                )
            self._put_problems(execute, account, app_id, platform, problems, observed_at)
            self._set_logged(execute, account, app_id, signature_id)
        return given_up

    def no_logs(self, account: str, app_id: str, signature_id: str) -> None:
        """A signature has no logs, or none any more: it is asked for them again when its weight changes."""
        with self._state._transaction() as execute:
            self._set_logged(execute, account, app_id, signature_id)

    def _set_logged(self, execute: Execute, account: str, app_id: str, signature_id: str) -> None:
        execute(
            "UPDATE signature SET logged = 1, logged_weight = weight WHERE (account, app_id, id) = (?, ?, ?)",
            account,
            app_id,
            signature_id,
        )

    # Observations

    def observations(self, account: str, app_id: str) -> list[tuple[int, Observation]]:
        """The values that wait to become histograms, with the numbers of their rows."""
        rows = self._state._rows(
            f"SELECT id, metric, attributes, value FROM observation WHERE {_APP} ORDER BY id",  # noqa: S608
            account,
            app_id,
        )
        return [
            (row_id, Observation(metric, tuple((key, text) for key, text in json.loads(attributes)), value))
            for row_id, metric, attributes, value in rows
        ]

    def flush(
        self,
        account: str,
        app_id: str,
        rows: Iterable[int],
        *,
        owed: Iterable[Body],
        owed_at: int,
        windows: Mapping[bytes, Window],
    ) -> None:
        """These observations have become the histograms in `owed`, whose windows end at `owed_at`."""
        with self._state._transaction() as execute:
            owe(execute, account, app_id, owed, owed_at)
            remember_windows(execute, Source(account, app_id, "", "signatures"), windows, (), owed_at)
            for row_id in rows:
                execute("DELETE FROM observation WHERE id = ?", row_id)
