"""Taking answers in: what App Store Connect answered → what is stored, in one transaction an answer."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from opentelemetry._logs import LogRecord
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter import __version__
from exporter.appstore.documents import loads
from exporter.appstore.jsonapi import App, Build
from exporter.appstore.payloads.diagnostics import Signature, Signatures, parse_logs, parse_signatures
from exporter.appstore.payloads.metrics import parse_metrics
from exporter.appstore.payloads.overview import Overview, parse_overview, with_goals
from exporter.appstore.payloads.reader import clean_text, platform_name
from exporter.appstore.reading import Answer
from exporter.appstore.versions import version_key
from exporter.cap import Cap
from exporter.convert.catalogue import REGRESSED
from exporter.convert.diagnostics import (
    Context,
    ConvertedGauges,
    Origin,
    Versions,
    convert_logs,
    convert_occurrences,
    convert_signatures,
    diagnostic_distributions,
    knows_earlier,
    new_signatures,
    problems_of,
    seen_in,
)
from exporter.convert.distributions import chained, owed
from exporter.convert.insights import ConvertedInsights, convert_insights
from exporter.convert.metrics import Converted, Selection, Standing, convert
from exporter.errors import AppStoreError
from exporter.otlp.edit import data_points, request_of, scopes
from exporter.otlp.encode import MOST_OWED_BYTES, Body, can_be_restamped, encode, encode_events
from exporter.report import CycleReport
from exporter.settings import Account, Settings
from exporter.state import MOST_EVENTS, Source, State, forget_sources
from exporter.state.diagnostics import Diagnostics, Known

SCOPE = InstrumentationScope("perfpower-exporter", __version__)
_SECOND = 1_000_000_000
_INSIGHTS_PART = 4  # Apple's insights may take a quarter of the series of an app's metrics
T = TypeVar("T")


class Intake:
    """Takes in what one account's poll is answered, and counts in `report` what it brought.

    Each method raises AppStoreError for an answer that cannot be understood; what is stored then stays.
    """

    def __init__(
        self, account: Account, settings: Settings, state: State, report: CycleReport, log: Any
    ) -> None:
        self._account = account
        self._collect = settings.collect
        self._settings = settings
        self._state = state
        self._diagnostics = Diagnostics(state)
        self._cap = Cap(settings, state)
        self._report = report
        self._log = log

    # Metrics and insights

    def metrics(self, app: App, build: Build | None, answer: Answer) -> None:
        """The metrics of an app with Apple's insights on them, or the metrics of one of its builds."""
        source = Source(self._account.name, app.id, build.id if build else "")
        number = build.number if build else ""
        room = self._cap.room(source) if build else self._cap.room_for_metrics()
        selection = Selection(self._collect.detail, self._collect.categories, self._collect.devices)
        least = self._settings.regression.min_change
        overview = None if build else self._overview(app)
        goals = overview.goals if overview else ()
        known = self._state.findings(source)
        withdrawn = any(not finding.active for finding in known)  # the next answer may do without its zeros
        made_with = (selection, room, number, least, goals, self._collect.events, withdrawn)
        digest = self._digest(app, answer.body, made_with)
        if self._is_unchanged(source, digest, answer):
            return
        payload = with_goals(self._parsed(app, parse_metrics, answer), goals)
        standing = frozenset() if build else _standing(self._state.gauges(source))

        def make(at: int) -> tuple[tuple[Converted, ConvertedInsights | None], list[Metric]]:
            # First Apple's insights, few series and important ones: else a large app would have none of them.
            found = (
                None
                if build
                else convert_insights(payload, known, observed_at=at, series_cap=room // _INSIGHTS_PART)
            )
            left = max(0, room - found.series.total()) if found else room
            converted = convert(
                payload,
                selection,
                observed_at=at,
                series_cap=left,
                build=number,
                min_change=least,
                standing=standing,
            )
            return (converted, found), [*converted.gauges, *(found.gauges if found else ())]

        (converted, found), gauges, observed_at = self._encoded_at(app, _nanoseconds(answer), make)
        series = converted.series + (found.series if found else Counter())
        events = self._events(app, found.events if found else [])
        with self._state.hold():  # a delivery must not move windows meanwhile
            series_of = self._series_of(app)
            before = self._windows(source, series_of)
            metrics, windows = owed(converted.distributions, before, observed_at)
            distributions = self._distributions(app, metrics)
            given_up = self._state.store(
                source,
                app.bundle_id,
                digest,
                observed_at,
                series.total(),
                gauges=gauges,
                events=events,
                owed=distributions,
                owed_at=next((window.ended_at for window in windows.values()), observed_at),
                windows={series_of + identity: window for identity, window in windows.items()},
                seen=[series_of + item.identity for item in converted.distributions],
                findings=found.findings if found else (),
                also=lambda execute: forget_sources(execute, self._cap.giving_way(source, series.total())),
            )
        self._count(app, source, gauges, series, converted.left_out, converted.capped)
        self._report.left_out += found.left_out if found else Counter()
        self._report.distributions += sum(body.points for body in distributions)
        self._count_events(app, events, given_up)
        self._report.unknown_units |= converted.unknown_units

    # The overview

    def overview(self, app: App, answer: Answer) -> None:
        """How often the top signatures occurred; and, kept for the answers that need it, what the overview
        says of goals, source files and lines."""
        source = self._overview_of(app)
        top = self._settings.diagnostics.top_signatures
        room = min(self._cap.room(source), 3 * top)
        known = self._known_signatures(app)
        digest = self._digest(app, answer.body, (room, top, sorted(known.items())))
        if self._is_unchanged(source, digest, answer):
            return
        overview = self._parsed(app, parse_overview, answer)
        document = gzip.compress(answer.body, compresslevel=1, mtime=0)
        self._store_gauges(
            app,
            source,
            digest,
            _nanoseconds(answer),
            lambda at: convert_occurrences(overview, known, top=top, series_cap=room, observed_at=at),
            document=document,
        )
        self._report.left_out += overview.left_out

    def _known_signatures(self, app: App) -> dict[str, tuple[str, str, str]]:
        """Signature id → its text, version and platform, as the app's signatures have them."""
        where = self._account.name, app.id
        origins = {build.id: origin_of(build) for build in self._diagnostics.builds(*where)}
        return {
            item.id: (item.text, origins[item.build_id].version, origins[item.build_id].platform)
            for item in self._diagnostics.signatures(*where)
            if item.build_id in origins
        }

    def no_overview(self, app: App) -> None:
        """An app has no overview, or none any more: what an earlier one said would stand still for ever."""
        gone = self._overview_of(app)
        self._state.keep_only(lambda answered: answered.source != gone)

    def _overview_of(self, app: App) -> Source:
        return Source(self._account.name, app.id, "", "overview")

    def _overview(self, app: App) -> Overview | None:
        """The last overview of an app, if it has one."""
        document = self._state.document(self._overview_of(app))
        return parse_overview(loads(gzip.decompress(document))) if document else None

    # Signatures and logs

    def signatures(self, app: App, answers: Mapping[str, Sequence[Answer]]) -> None:
        """The signatures of an app's builds, by build id: the pages of each.

        What earlier versions have tells what is new in later ones; so all are read, the earliest first. Then
        they are stored, the latest first: where the series do not suffice, those of the earliest go.
        """
        builds = self._diagnostics.builds(self._account.name, app.id)
        came = sorted(
            (build for build in builds if build.id in answers), key=lambda build: version_key(build.version)
        )
        read: list[tuple[Build, Signatures, frozenset[str]]] = []
        for build in came:
            try:
                parsed = parse_signatures(page.document for page in answers[build.id])
            except AppStoreError as error:  # of this build; what is stored of it stays
                error.where = f"account {self._account.name}, {app.bundle_id} {build.version}"
                self._report.failures.append(error)
            else:
                answered = {item.id for item, *_ in read} | self._answered_builds(app)
                read.append((build, parsed, self._new(app, build, parsed, answers[build.id], answered)))
        for place, (build, parsed, new) in reversed(list(enumerate(read))):
            not_yet = [item.id for item, *_ in read[:place]]
            self._store_signatures(app, build, answers[build.id], parsed, new, not_yet)

    def _new(
        self, app: App, build: Build, parsed: Signatures, pages: Sequence[Answer], answered: Collection[str]
    ) -> frozenset[str]:
        """The signatures that no earlier version had; and all are remembered as seen in this one."""
        where, origin = (self._account.name, app.id), origin_of(build)
        problems = self._diagnostics.problems(*where, origin.platform)
        new = frozenset[str]()
        if self._is_comparable(app, build, problems, answered):
            new = new_signatures(parsed.signatures, origin.version, problems)
        of_build = {
            problem: seen_in(problems.get(problem), origin.version)
            for problem in problems_of(parsed.signatures).values()
        }
        self._diagnostics.touch_problems(*where, origin.platform, of_build, _nanoseconds(pages[-1]))
        return new

    def _is_comparable(
        self, app: App, build: Build, problems: Mapping[str, Versions], answered: Collection[str]
    ) -> bool:
        """Whether enough is known of earlier versions to call a signature of this one new.

        Of the newest version only: it is what alerts are about. All earlier ones that are held have to be
        `answered`, their builds' ids; where none is held, something has to be remembered of one.
        """
        builds = self._diagnostics.builds(self._account.name, app.id)
        earlier = [item for item in builds if _is_earlier(item, build)]
        return (
            not any(_is_earlier(build, other) for other in builds)
            and all(item.id in answered for item in earlier)
            and (bool(earlier) or knows_earlier(problems, build.version))
        )

    def _logs_were_read(self, app: App, build: Build, kind: str) -> bool:
        """Whether a log of an earlier version can tell that a problem is not new in this one.

        Of each earlier version that has signatures of this type the logs of one at least: the first look at
        several versions begins with the newest.
        """
        where = self._account.name, app.id
        read: dict[str, bool] = {}
        for item in self._diagnostics.signatures(*where):
            if item.type == kind:
                read[item.build_id] = read.get(item.build_id, False) or item.logged
        earlier = [item for item in self._diagnostics.builds(*where) if _is_earlier(item, build)]
        return all(read.get(item.id, True) for item in earlier)

    def _store_signatures(
        self,
        app: App,
        build: Build,
        pages: Sequence[Answer],
        parsed: Signatures,
        new: frozenset[str],
        not_yet: Collection[str],
    ) -> None:
        """`not_yet` are the builds whose series are about to be made anew after these."""
        source = Source(self._account.name, app.id, build.id, "signatures")
        origin = origin_of(build)
        most = 2 * (len(parsed.signatures) + 3)  # room for more than there is makes no difference
        most += sum(2 + len(item.reference_versions) for item in parsed.signatures)
        room = min(self._cap.room(source, not_yet), most)
        top = self._settings.diagnostics.top_signatures
        digest = self._digest(app, b"".join(page.body for page in pages), (room, top, origin, sorted(new)))
        if self._is_unchanged(source, digest, pages[-1]):
            return
        self._store_gauges(
            app,
            source,
            digest,
            _nanoseconds(pages[-1]),
            lambda at: convert_signatures(
                parsed.signatures, origin, new=new, top=top, series_cap=room, observed_at=at
            ),
            signatures=parsed.signatures,
        )
        self._report.left_out += parsed.left_out

    def _answered_builds(self, app: App) -> set[str]:
        """The builds whose signatures are known, be it that there are none."""
        return {
            item.source.build_id
            for item in self._state.answered()
            if item.source[:2] == (self._account.name, app.id) and item.source.kind == "signatures"
        }

    def logs(self, app: App, build: Build, signature: Known, answer: Answer) -> None:
        """The logs of a signature: an event for each that is new, and its value for a histogram."""
        source = Source(self._account.name, app.id, build.id, "signatures")
        origin = origin_of(build)
        parsed = self._parsed(app, parse_logs, answer)
        problems = self._diagnostics.problems(*source[:2], origin.platform)
        overview = self._overview(app)
        place = (
            next((top for top in overview.signatures if top.id == signature.id), None) if overview else None
        )
        context = Context(
            signature=Signature(signature.id, signature.type, signature.text, signature.weight, None, ()),
            origin=origin,
            file=place.file if place else "",
            line=place.line if place else None,
            problems=problems,
            comparable=self._is_comparable(app, build, problems, self._answered_builds(app))
            and self._logs_were_read(app, build, signature.type),
        )
        observed_at = _nanoseconds(answer)
        seen = self._diagnostics.seen(*source[:2])
        converted = convert_logs(parsed.products, context, seen=seen, observed_at=observed_at)
        events = self._events(app, converted.events)
        given_up = self._diagnostics.store_logs(
            source,
            signature.id,
            origin.platform,
            observed_at,
            events=events,
            observations=converted.observations,
            identities=converted.identities,
            problems=converted.problems,
        )
        self._report.answers += 1
        self._count_events(app, events, given_up)
        self._report.left_out += parsed.left_out + converted.left_out

    def flush(self, app: App, at: float) -> None:
        """What the logs of this poll (or of one that was killed) measured → histograms, one point a series.

        One for all logs together: of several points of a series within a second Datadog keeps the last.

        Args:
            at: the time now, in seconds since the epoch.
        """
        rows = self._diagnostics.observations(self._account.name, app.id)
        if not rows:
            return
        source = Source(self._account.name, app.id, "", "signatures")
        with self._state.hold():
            series_of = self._series_of(app)
            before = self._windows(source, series_of)
            wanted = diagnostic_distributions([observation for _, observation in rows])
            kept, beyond = self._cap.fitting(source, wanted, before)
            now = int(at * _SECOND)
            metrics, windows = chained(kept, before, now)
            bodies = self._distributions(app, metrics)
            self._diagnostics.flush(
                *source[:2],
                [row_id for row_id, _ in rows],
                owed=bodies,
                owed_at=next((window.ended_at for window in windows.values()), now),
                windows={series_of + identity: window for identity, window in windows.items()},
            )
        self._report.distributions += sum(body.points for body in bodies)
        self._report.series += Counter(item.name for item in kept)
        self._report.series_by_app[app.bundle_id] += len(kept)
        self._report.left_out += Counter(series_cap=sum(sum(item.counts) for item in beyond))
        self._note_capped(app, source, Counter(item.name for item in beyond))

    # What they have in common

    def _store_gauges(
        self,
        app: App,
        source: Source,
        digest: bytes,
        observed_at: int,
        convert: Callable[[int], ConvertedGauges],
        *,
        document: bytes = b"",
        signatures: Sequence[Signature] | None = None,
    ) -> None:
        def make(at: int) -> tuple[ConvertedGauges, list[Metric]]:
            converted = convert(at)
            return converted, converted.gauges

        converted, gauges, observed_at = self._encoded_at(app, observed_at, make)
        self._state.store(
            source,
            app.bundle_id,
            digest,
            observed_at,
            converted.series.total(),
            gauges=gauges,
            document=document,
            also=lambda execute: (
                None if signatures is None else self._diagnostics.put_signatures(execute, source, signatures)
            ),
        )
        self._count(app, source, gauges, converted.series, converted.left_out, converted.capped)

    def _is_unchanged(self, source: Source, digest: bytes, answer: Answer) -> bool:
        """Whether a source gave the same answer as the last time; it then is as fresh as this one."""
        self._report.answers += 1
        if self._state.digest(source) != digest:
            return False
        self._state.touch(source, _nanoseconds(answer))
        self._report.unchanged += 1
        return True

    def _digest(self, app: App, body: bytes, made_with: object) -> bytes:
        """Of an answer and of everything else that decides what becomes of it."""
        text = repr((__version__, self._resource(app), made_with))
        return hashlib.sha256(text.encode() + body).digest()

    def _parsed(self, app: App, parse: Callable[[object], T], answer: Answer) -> T:
        try:
            return parse(answer.document)
        except AppStoreError as error:
            error.where = f"account {self._account.name}, {app.bundle_id}"
            raise

    def _encoded_at(
        self, app: App, observed_at: int, make: Callable[[int], tuple[T, list[Metric]]]
    ) -> tuple[T, list[Body], int]:
        """What `make` makes for a time, its gauges encoded, and the time.

        By a chance of 1 in 2^70 the bytes of the time stand somewhere else in a body, too; such a body could
        not be re-dated, and everything is made anew for the next nanosecond.
        """
        while True:
            made, metrics = make(observed_at)
            bodies = self._encoded(app, metrics)
            if all(can_be_restamped(body, observed_at) for body in bodies):
                return made, bodies, observed_at
            observed_at += 1

    def _encoded(self, app: App, metrics: Sequence[Metric]) -> list[Body]:
        return encode(Resource(self._resource(app)), SCOPE, metrics)

    def _distributions(self, app: App, metrics: Sequence[Metric]) -> list[Body]:
        return encode(Resource(self._resource(app)), SCOPE, metrics, most_bytes=MOST_OWED_BYTES)

    def _events(self, app: App, records: Sequence[LogRecord]) -> list[Body]:
        if not (records and self._collect.events):
            return []
        return encode_events(Resource(self._resource(app)), SCOPE, records)

    def _windows(self, source: Source, series_of: bytes) -> dict[bytes, Any]:
        """The windows of the distributions of this resource, by the distributions' identity."""
        return {
            series.removeprefix(series_of): window
            for series, window in self._state.windows(*source[:2], source.kind).items()
            if series.startswith(series_of)
        }

    def _series_of(self, app: App) -> bytes:
        """What stands before the identity of a distribution: another resource makes other series."""
        return hashlib.sha256(repr(self._resource(app)).encode()).digest()[:8]

    def _count(
        self,
        app: App,
        source: Source,
        gauges: Sequence[Body],
        series: Counter[str],
        left_out: Counter[str],
        capped: Counter[str],
    ) -> None:
        report = self._report
        report.points += sum(body.points for body in gauges)
        report.series += series
        report.series_by_app[app.bundle_id] += series.total()
        report.left_out += left_out
        self._note_capped(app, source, capped)

    def _note_capped(self, app: App, source: Source, capped: Counter[str]) -> None:
        """Series, by metric, that the cap held back."""
        self._report.capped += capped
        if capped:
            self._log.warning(
                "cycle.series_cap_reached",
                account=source.account,
                app=app.bundle_id,
                build=source.build_id or None,
                cap=self._settings.limits.series_per_app,
                setting="limits.series_per_app",
                left_out=capped.total(),
                most=dict(capped.most_common(5)),
            )

    def _count_events(self, app: App, events: Sequence[Body], given_up: int) -> None:
        self._report.events += sum(body.points for body in events)
        if given_up:
            self._report.left_out["event_backlog"] += given_up
            self._log.error(
                "cycle.events_given_up",
                account=self._account.name,
                app=app.bundle_id,
                events=given_up,
                reason=f"no endpoint takes them, and {MOST_EVENTS:,} newer requests wait",
            )

    def _resource(self, app: App) -> dict[str, str]:
        attributes = {
            "service.name": self._account.apps.service_name(app.bundle_id, app.id),
            "appstore.app.id": app.id,
            "appstore.app.name": clean_text(app.name),
            "appstore.account": self._account.name,
            "deployment.environment.name": self._account.environment,
        }
        return {key: value for key, value in attributes.items() if value}


def _standing(gauges: Iterable[Body]) -> frozenset[Standing]:
    """The regressions in stored gauges."""
    return frozenset(
        Standing.of(metric.name, {item.key: item.value.string_value for item in point.attributes})
        for body in gauges
        for scope in scopes(request_of(body), body.signal)
        for metric in scope.metrics
        if metric.name.endswith(f".{REGRESSED.suffix}")
        for point in data_points(metric)
        if point.as_double == 1
    )


def _is_earlier(build: Build, than: Build) -> bool:
    """Whether a build is of an earlier version for the same platform."""
    return build.platform == than.platform and version_key(build.version) < version_key(than.version)


def origin_of(build: Build) -> Origin:
    """A build as diagnostics bear it."""
    return Origin(build.version, build.number, platform_name(build.platform))


def _nanoseconds(answer: Answer) -> int:
    return int(answer.received_at * _SECOND)
