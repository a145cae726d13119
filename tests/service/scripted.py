"""An App Store Connect that answers by a script, for what the sandbox cannot be made to say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from exporter.appstore.client import AppStoreClient
from exporter.appstore.documents import loads
from exporter.appstore.jsonapi import App, Build
from exporter.appstore.quota import Quota
from exporter.appstore.reading import Answer
from exporter.cycle import Cycle
from exporter.errors import AppStoreError, NotFound, Unavailable
from exporter.report import CycleReport
from exporter.sandbox import Point
from exporter.sandbox.records import Record
from exporter.state.diagnostics import Diagnostics, Known
from tests.service.service_world import HOUR, Clock, World

Json = dict[str, Any]
Reply = Json | AppStoreError
Asked = tuple[str, str]

APP = App("1", "com.example.one", "One")
DAY = 24 * HOUR
NO_METRICS: Json = {"version": "1", "productData": [], "insights": {"trendingUp": [], "regressions": []}}


@dataclass
class Script:
    """Has AppStoreClient's methods; what is not written down for an id is a 404, or an app without usage.

    `asked` are the requests, each with the id that it is about. Each takes one of the key's hour; a listing
    of builds takes `pages`.
    """

    clock: Clock
    quota: Quota | None = None
    apps_listed: list[App] = field(default_factory=lambda: [APP])
    builds_of: dict[str, list[Build] | AppStoreError] = field(default_factory=dict)
    metrics_of: dict[str, Reply] = field(default_factory=dict)
    overview_of: dict[str, Reply] = field(default_factory=dict)
    signatures_of: dict[str, Reply] = field(default_factory=dict)
    logs_of: dict[str, Reply] = field(default_factory=dict)
    pages: int = 1
    asked: list[Asked] = field(default_factory=list)

    def apps(self, *, ids: Sequence[str] = (), bundle_ids: Sequence[str] = ()) -> list[App]:
        self._request("apps", "")
        return list(self.apps_listed)

    def builds(self, app_id: str, *, enough: Callable[[Sequence[Build]], bool]) -> list[Build]:
        listed = self.builds_of.get(app_id, [])
        for page in range(1, self.pages + 1):
            self._request("builds", app_id)
            if isinstance(listed, AppStoreError):
                raise listed
            enough(listed[: len(listed) * page // self.pages])
        return list(cast("list[Build]", listed))

    def metrics(self, kind: Literal["apps", "builds"], resource_id: str) -> Answer:
        if kind == "builds":
            return self._answer("build_metrics", resource_id, self.metrics_of)
        return self._answer("metrics", resource_id, {resource_id: NO_METRICS} | self.metrics_of)

    def overview(self, app_id: str) -> Answer:
        return self._answer("overview", app_id, self.overview_of)

    def signatures(self, build_id: str) -> list[Answer]:
        return [self._answer("signatures", build_id, self.signatures_of)]

    def logs(self, signature_id: str) -> Answer:
        return self._answer("logs", signature_id, self.logs_of)

    def _answer(self, what: str, identity: str, replies: Mapping[str, Reply]) -> Answer:
        self._request(what, identity)
        reply = replies.get(identity, NotFound("there is no such thing"))
        if isinstance(reply, AppStoreError):
            raise reply
        body = json.dumps(reply).encode()
        document = loads(body)
        assert isinstance(document, dict)
        return Answer(body, self.clock(), document)

    def _request(self, what: str, identity: str) -> None:
        assert self.quota is not None
        self.clock.now += self.quota.take(self.clock())
        self.asked.append((what, identity))


class ScriptedWorld(World):
    """A world in which App Store Connect answers by a script; the state file and the receiver are real."""

    def __init__(self, folder: Path, **overrides: object) -> None:
        super().__init__(folder, None, **{"diagnostics__versions": 3, **overrides})
        self.script = Script(self.clock)

    def __enter__(self) -> ScriptedWorld:
        super().__enter__()
        return self

    def open(self) -> None:
        super().open()
        self.script.quota = self.quota
        client = cast("AppStoreClient", self.script)
        self.cycle = Cycle(
            self.account, self.settings, client, self.quota, self.state, clock=self.clock, log=self.log
        )

    def hold(self, *builds: Build) -> None:
        """The builds of the first app, as they are listed from now on."""
        self.script.builds_of[APP.id] = list(builds)

    def later(self, hours: float) -> None:
        self.clock.now += hours * HOUR

    def poll_asking(self) -> tuple[CycleReport, list[Asked]]:
        """Poll once, with the end that the service gives it; the report, and what was asked for."""
        before = len(self.script.asked)
        report = self.poll()
        self.state.finish_run(self.account.name, self.clock(), b"")
        return report, self.script.asked[before:]

    def delivered(self) -> tuple[list[Point], list[Point], list[Record]]:
        """The gauges, histograms and events that a heartbeat sends now, without the exporter's own."""
        points, records = len(self.receiver.points), len(self.receiver.records)
        assert self.deliverer.deliver().outcome == "ok"
        sent = self.receiver.points[points:]
        gauges = [point for point in sent if point.kind == "gauge"]
        histograms = [point for point in sent if point.kind == "histogram"]
        return gauges, histograms, list(self.receiver.records[records:])

    def pending(self) -> dict[tuple[str, str], bool]:
        """(build id, signature id) of the first app → whether logs are still to be asked for."""
        known: list[Known] = Diagnostics(self.state).signatures(self.account.name, APP.id)
        return {(item.build_id, item.id): item.pending for item in known}


def of(asked: Sequence[Asked], what: str) -> list[str]:
    """The ids of all requests of a kind."""
    return [identity for kind, identity in asked if kind == what]


def unavailable() -> Unavailable:
    return Unavailable("App Store Connect answers 500")


# Documents


def build(identity: str, version: str, uploaded: float, platform: str = "IOS") -> Build:
    return Build(identity, "1", version, platform, uploaded, expired=False, released=True)


def signature(identity: str, text: str, weight: float | None = 0.5, kind: str = "HANGS") -> Json:
    attributes = {"diagnosticType": kind, "signature": text, "weight": weight}
    return {"type": "diagnosticSignatures", "id": identity, "attributes": attributes}


def page(*signatures: Json) -> Json:
    return {"data": list(signatures), "links": {}}


def log(detail: str = "Hang of 2 sec", *frames: Json, **metadata: str) -> Json:
    about = {"event": "hang", "eventDetail": detail, "deviceType": "iPhone13_3", **metadata}
    stack = {"callStackRootFrames": list(frames)}
    return {"diagnosticMetaData": about, "callStackTree": [{"callStacks": [stack]}]}


def frame(symbol: str, *below: Json, blamed: bool = True, offset: str = "1") -> Json:
    found = {"binaryName": "Shop", "offsetIntoBinaryTextSegment": offset, "isBlameFrame": blamed}
    return {"symbolName": symbol, "sampleCount": 1, "subFrames": list(below), **found}


def logs(identity: str, *found: Json) -> Json:
    product = {"signatureId": identity, "diagnosticInsights": [], "diagnosticLogs": list(found)}
    return {"version": "1", "productData": [product]}


def launch_times(models: int, *versions: str) -> Json:
    """Metrics: the launch time of each version on all iPhones and on so many models."""
    datasets = [
        {
            "filterCriteria": {"percentile": "percentile.fifty", "device": device},
            "points": [{"version": version, "value": 100.0 + models} for version in versions],
        }
        for device in ("all_iphones", *(f"iPhone{model},1" for model in range(models)))
    ]
    unit = {"identifier": "milliseconds", "displayName": "ms"}
    metric = {"identifier": "launchTime", "unit": unit, "datasets": datasets}
    categories = [{"identifier": "LAUNCH", "metrics": [metric]}]
    return {**NO_METRICS, "productData": [{"platform": "iOS", "metricCategories": categories}]}
