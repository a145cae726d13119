"""How the series that an app may have are divided among what makes them.

Three quarters are for its metrics, with Apple's insights on them. What these leave is for diagnostics: for
the gauges of signatures, the newest version's first, and for histograms, an eighth of all at least for each.
The metrics of builds get what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from exporter.appstore.versions import version_key
from exporter.convert.distributions import Distribution
from exporter.settings import Settings
from exporter.state import Source, State
from exporter.state.diagnostics import Diagnostics


class Cap:
    """`limits.series_per_app`, applied to what the state holds."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._cap = settings.limits.series_per_app
        self._wants = settings.diagnostics
        self._state = state
        self._diagnostics = Diagnostics(state)

    def room(self, source: Source, not_yet: Collection[str] = ()) -> int:
        """How many series a source may make, beside the others of the app.

        Not counted are the signatures of the builds in `not_yet`.
        """
        others = sum(
            item.series
            for item in self._state.answered()
            if item.source[:2] == source[:2]
            and item.source != source
            and not (item.source.kind == "signatures" and item.source.build_id in not_yet)
        )
        return max(0, self._cap - others - self._kept_for_histograms(source))

    def room_for_metrics(self) -> int:
        """All of the cap, but for the quarter that is kept for diagnostics.

        One metric more on every device model must not leave the hangs without their signatures.
        """
        return self._cap - self._cap // 4 if self._wants.versions else self._cap

    def _kept_for_histograms(self, source: Source, metrics: int | None = None) -> int:
        """The series that the histograms of diagnostics had lately, and an eighth of the cap at least.

        What the metrics leave is theirs, but for another eighth: that is for the gauges of diagnostics.

        Args:
            source: of the app.
            metrics: how many series the app's metrics make, if not as many as are stored.
        """
        if not (self._wants.versions and self._wants.logs):
            return 0
        metrics = self._state.series(Source(*source[:2])) if metrics is None else metrics
        most = self._cap - metrics - self._cap // 8
        return max(self._cap // 8, min(most, len(self._state.windows(*source[:2], "signatures"))))

    def giving_way(self, source: Source, series: int) -> list[Source]:
        """The sources that have to go should the app's own metrics make so many series.

        The metrics of builds, then signatures, the oldest builds' first. What still has room comes back when
        it is asked for, in this poll as a rule.
        """
        if source.build_id:
            return []
        builds = self._diagnostics.builds(*source[:2])
        places = {build.id: version_key(build.version) for build in builds}
        others = sorted(
            (
                item
                for item in self._state.answered()
                if item.source[:2] == source[:2] and item.source.build_id
            ),
            key=lambda item: (item.source.kind != "metrics", places.get(item.source.build_id, ())),
        )
        total = self._state.series_of_others(source) + series + self._kept_for_histograms(source, series)
        gone: list[Source] = []
        for item in others:
            if total > self._cap:
                gone.append(item.source)
                total -= item.series
        return gone

    def fitting(
        self, source: Source, wanted: Sequence[Distribution], before: Collection[bytes]
    ) -> tuple[list[Distribution], list[Distribution]]:
        """As many series as the cap has room for, and the rest.

        First those that were there before, then the fullest.
        """
        room = self._cap - self._state.series_of_others(source)
        ranked = sorted(
            wanted,
            key=lambda item: (
                item.identity not in before,
                -sum(item.counts),
                item.name,
                sorted(item.attributes.items()),
            ),
        )
        known = [item for item in ranked if item.identity in before]
        kept = known[: max(0, room)]
        kept += ranked[len(known) :][: max(0, room - len(before))]
        identities = {item.identity for item in kept}
        return kept, [item for item in wanted if item.identity not in identities]
