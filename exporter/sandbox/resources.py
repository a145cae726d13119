"""App Store Connect's JSON:API side: query parameters, errors, pages, apps, builds and signatures. Pure."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from exporter.sandbox.problems import TYPES
from exporter.sandbox.store import SandboxBuild, SandboxSignature, Store
from exporter.sandbox.tables import METRICS, SandboxApp

Json = dict[str, Any]
T = TypeVar("T", SandboxApp, SandboxBuild, SandboxSignature)
Values = Mapping[str, list[str]]

LARGEST_LIMIT = 200
DEFAULT_LIMIT = 50

_APP_FIELDS = frozenset({"name", "bundleId", "sku", "primaryLocale", "builds"})
_BUILD_FIELDS = frozenset(
    {
        "version",
        "uploadedDate",
        "expirationDate",
        "expired",
        "processingState",
        "buildAudienceType",
        "preReleaseVersion",
        "appStoreVersion",
        "app",
        "perfPowerMetrics",
        "diagnosticSignatures",
    }
)
_PRE_RELEASE_FIELDS = frozenset({"version", "platform", "app", "builds"})
_STORE_VERSION_FIELDS = frozenset({"platform", "versionString", "appStoreState", "appVersionState"})
_SIGNATURE_FIELDS = frozenset({"diagnosticType", "signature", "weight", "insight", "logs"})
_PLATFORMS = frozenset({"IOS", "MAC_OS", "TV_OS", "VISION_OS"})
_PAGING: dict[str, frozenset[str] | None] = {"limit": None, "cursor": None}
_APPLE_TIME = timezone(timedelta(hours=-8))  # Apple writes its own office's time, with the offset

APPS_PARAMETERS: dict[str, frozenset[str] | None] = {
    "filter[bundleId]": None,
    "filter[id]": None,
    "fields[apps]": _APP_FIELDS,
    "sort": frozenset({"name", "-name", "bundleId", "-bundleId"}),
    **_PAGING,
}
BUILDS_PARAMETERS: dict[str, frozenset[str] | None] = {
    "filter[app]": None,
    "filter[id]": None,
    "filter[version]": None,
    "filter[expired]": frozenset({"true", "false"}),
    "filter[processingState]": frozenset({"PROCESSING", "FAILED", "INVALID", "VALID"}),
    "filter[preReleaseVersion.version]": None,
    "filter[preReleaseVersion.platform]": _PLATFORMS,
    "filter[buildAudienceType]": frozenset({"INTERNAL_ONLY", "APP_STORE_ELIGIBLE"}),
    "fields[builds]": _BUILD_FIELDS,
    "fields[preReleaseVersions]": _PRE_RELEASE_FIELDS,
    "fields[appStoreVersions]": _STORE_VERSION_FIELDS,
    "fields[apps]": _APP_FIELDS,
    "include": frozenset({"preReleaseVersion", "appStoreVersion", "app"}),
    "sort": frozenset({"version", "-version", "uploadedDate", "-uploadedDate"}),
    **_PAGING,
}
APP_BUILDS_PARAMETERS: dict[str, frozenset[str] | None] = {"fields[builds]": _BUILD_FIELDS, **_PAGING}
METRICS_PARAMETERS: dict[str, frozenset[str] | None] = {
    "filter[platform]": frozenset({"IOS"}),
    "filter[metricType]": frozenset(kind.category for kind in METRICS),
    "filter[deviceType]": None,
}
SIGNATURES_PARAMETERS: dict[str, frozenset[str] | None] = {
    "filter[diagnosticType]": frozenset(TYPES),
    "fields[diagnosticSignatures]": _SIGNATURE_FIELDS,
    **_PAGING,
}
LOGS_PARAMETERS: dict[str, frozenset[str] | None] = {"limit": None}
OVERVIEW_PARAMETERS: dict[str, frozenset[str] | None] = {"filter[deviceType]": None}

_TITLES = {
    400: "A parameter has an invalid value",
    401: "The credentials are missing or not valid",
    403: "The operation is not allowed",
    404: "The resource does not exist",
    405: "The method is not allowed",
    406: "The media type is not acceptable",
    429: "The request rate limit has been reached",
}
_CODES = {
    400: "PARAMETER_ERROR.INVALID",
    401: "NOT_AUTHORIZED",
    403: "FORBIDDEN_ERROR",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    429: "RATE_LIMIT_EXCEEDED",
}


class ApiError(Exception):
    """An error that App Store Connect answers with.

    Args:
        status: the HTTP status.
        detail: a sentence.
        code: Apple's code; by default the usual one for the status.
        parameter: the query parameter that is to blame.
    """

    def __init__(self, status: int, detail: str, *, code: str = "", parameter: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code or default_code(status)
        self.parameter = parameter

    def document(self) -> Json:
        """The body: `{"errors": […]}` with one entry."""
        error: Json = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.status}/{self.code}/{self}")),
            "status": str(self.status),
            "code": self.code,
            "title": _TITLES.get(self.status, "An unexpected error occurred"),
            "detail": str(self),
        }
        if self.parameter is not None:
            error["source"] = {"parameter": self.parameter}
        return {"errors": [error]}


def default_code(status: int) -> str:
    """The code that usually comes with a status."""
    return _CODES.get(status, "UNEXPECTED_ERROR")


def parse_query(query: str, allowed: Mapping[str, frozenset[str] | None]) -> Values:
    """The parameters with their comma-separated values.

    Args:
        query: as sent.
        allowed: the known parameters, each with its permitted values (None: any).

    Raises:
        ApiError: an unknown parameter, one given twice, an empty or a forbidden value.
    """
    values: dict[str, list[str]] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            code = "PARAMETER_ERROR.ILLEGAL"
            raise ApiError(400, f"The parameter '{name}' can not be used here.", code=code, parameter=name)
        if name in values:
            raise ApiError(400, f"The parameter '{name}' occurs twice.", parameter=name)
        values[name] = text.split(",")
        _check_values(name, values[name], allowed[name])
    return values


def _check_values(name: str, values: Sequence[str], permitted: frozenset[str] | None) -> None:
    for value in values:
        if not value or (permitted is not None and value not in permitted):
            raise ApiError(400, f"'{value[:80]}' is not a valid value for '{name}'.", parameter=name)


@dataclass(frozen=True)
class Endpoint:
    """Where a list is served: its absolute URL, and the most that one page may hold."""

    url: str
    page_size_max: int


def apps_document(store: Store, endpoint: Endpoint, query: str) -> Json:
    """The answer of `/v1/apps`."""
    values = parse_query(query, APPS_PARAMETERS)
    apps = [
        app
        for app in store.apps
        if _passes(values, "filter[id]", app.id) and _passes(values, "filter[bundleId]", app.bundle_id)
    ]
    keys: dict[str, Callable[[SandboxApp], str]] = {
        "name": lambda app: app.name,
        "bundleId": lambda app: app.bundle_id,
    }
    ordered = _sorted(apps, values, keys)
    return _document(ordered, lambda app: _app(app, endpoint, values), endpoint, values)


def builds_document(store: Store, day: float, endpoint: Endpoint, query: str) -> Json:
    """The answer of `/v1/builds`."""
    values = parse_query(query, BUILDS_PARAMETERS)
    everything = [build for app in store.apps for build in store.builds(app.id, day)]
    keys: dict[str, Callable[[SandboxBuild], Any]] = {
        "version": lambda build: int(build.number),
        "uploadedDate": lambda build: build.uploaded,
    }
    builds = _sorted([build for build in everything if _build_passes(build, values)], values, keys)
    document = _document(builds, lambda build: _build(build, endpoint, values), endpoint, values)
    if "include" in values:
        shown = {resource["id"] for resource in document["data"]}
        document["included"] = _included(store, [b for b in builds if b.id in shown], endpoint, values)
    return document


def app_builds_document(store: Store, app_id: str, day: float, endpoint: Endpoint, query: str) -> Json:
    """The answer of `/v1/apps/{id}/builds`: no sorting and no includes."""
    values = parse_query(query, APP_BUILDS_PARAMETERS)
    builds = sorted(store.builds(app_id, day), key=lambda build: build.id)
    return _document(builds, lambda build: _build(build, endpoint, values), endpoint, values)


def signatures_document(store: Store, build_id: str, day: float, endpoint: Endpoint, query: str) -> Json:
    """The answer of `/v1/builds/{id}/diagnosticSignatures`.

    Raises:
        ApiError: 404 for an unknown build, and for one that is in TestFlight only.
    """
    values = parse_query(query, SIGNATURES_PARAMETERS)
    try:
        build = store.build(build_id, day)
    except KeyError as error:
        raise missing("builds", build_id) from error
    if build.store_state is None:
        raise ApiError(404, "There are no diagnostic signatures of this build.")
    found = [s for s in store.signatures(build_id, day) if _passes(values, "filter[diagnosticType]", s.type)]
    return _document(found, lambda signature: _signature(signature, endpoint, values), endpoint, values)


def logs_document(store: Store, signature_id: str, day: float, query: str) -> Json:
    """The answer of `/v1/diagnosticSignatures/{id}/logs`, which is no JSON:API.

    Raises:
        ApiError: 404 for a signature that its build does not have, or no longer.
    """
    limit = _limit(parse_query(query, LOGS_PARAMETERS))
    try:
        return store.logs_payload(signature_id, day, limit)
    except KeyError as error:
        raise missing("diagnosticSignatures", signature_id) from error


def overview_document(store: Store, app_id: str, day: float, query: str) -> Json:
    """The answer of `/v1/apps/{id}/performanceOverviews`, which is no JSON:API.

    Raises:
        ApiError: 404 for an unknown app, and for one whose account is not offered any.
    """
    values = parse_query(query, OVERVIEW_PARAMETERS)
    try:
        return store.overview_payload(app_id, day, values.get("filter[deviceType]", ()))
    except KeyError as error:
        raise missing("apps", app_id) from error


def missing(kind: str, identity: str) -> ApiError:
    """404 for a resource that is not there."""
    return ApiError(404, f"There is no resource of type '{kind}' with id '{identity[:80]}'.")


def _passes(values: Values, name: str, value: str) -> bool:
    return name not in values or value in values[name]


def _build_passes(build: SandboxBuild, values: Values) -> bool:
    facts = {
        "filter[app]": build.app_id,
        "filter[id]": build.id,
        "filter[version]": build.number,
        "filter[expired]": str(build.expired).lower(),
        "filter[processingState]": build.processing_state,
        "filter[preReleaseVersion.version]": build.version,
        "filter[preReleaseVersion.platform]": build.platform,
        "filter[buildAudienceType]": build.audience,
    }
    return all(_passes(values, name, value) for name, value in facts.items())


def _sorted(items: list[T], values: Values, keys: Mapping[str, Callable[[T], Any]]) -> list[T]:
    """By the `sort` parameter; without one the order means nothing, and here it is the ids'."""
    ordered = sorted(items, key=lambda item: item.id)
    for name in reversed(values.get("sort", [])):
        ordered.sort(key=keys[name.removeprefix("-")], reverse=name.startswith("-"))
    return ordered


def _document(items: list[T], shown: Callable[[T], Json], endpoint: Endpoint, values: Values) -> Json:
    limit, start = _limit(values), _start(values)
    size = min(limit, endpoint.page_size_max)
    links = {"self": _link(endpoint, values)}
    paging: Json = {"total": len(items), "limit": limit}
    if start + size < len(items):
        paging["nextCursor"] = _cursor(start + size)
        links["next"] = _link(endpoint, {**values, "cursor": [paging["nextCursor"]]})
    page = [shown(item) for item in items[start : start + size]]
    return {"data": page, "links": links, "meta": {"paging": paging}}


def _link(endpoint: Endpoint, values: Values) -> str:
    query = urlencode({name: ",".join(value) for name, value in values.items()}, quote_via=quote)
    return f"{endpoint.url}?{query}" if query else endpoint.url


def _limit(values: Values) -> int:
    text = ",".join(values.get("limit", [str(DEFAULT_LIMIT)]))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LARGEST_LIMIT):
        raise ApiError(400, f"'limit' has to be from 1 to {LARGEST_LIMIT}.", parameter="limit")
    return int(text)


def _cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"from:{start}".encode()).decode()


def _start(values: Values) -> int:
    if "cursor" not in values:
        return 0
    try:
        text = base64.b64decode(values["cursor"][0], altchars=b"-_", validate=True).decode()
        return int(text.removeprefix("from:")[:9])
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "The cursor is not one that was given out.", parameter="cursor") from error


def _app(app: SandboxApp, endpoint: Endpoint, values: Values) -> Json:
    attributes = {"name": app.name, "bundleId": app.bundle_id, "sku": app.bundle_id, "primaryLocale": "en-GB"}
    self_link = f"{_root(endpoint)}/apps/{app.id}"
    builds = {"links": {"self": f"{self_link}/relationships/builds", "related": f"{self_link}/builds"}}
    return _resource("apps", app.id, attributes, {"builds": builds}, self_link, values)


def _build(build: SandboxBuild, endpoint: Endpoint, values: Values) -> Json:
    attributes = {
        "version": build.number,
        "uploadedDate": build.uploaded.astimezone(_APPLE_TIME).isoformat(),
        "expirationDate": build.expires.astimezone(_APPLE_TIME).isoformat(),
        "expired": build.expired,
        "processingState": build.processing_state,
        "buildAudienceType": build.audience,
    }
    self_link = f"{_root(endpoint)}/builds/{build.id}"
    related = {
        "preReleaseVersion": {"type": "preReleaseVersions", "id": _pre_release_id(build)},
        "appStoreVersion": {"type": "appStoreVersions", "id": _store_version_id(build)},
        "app": {"type": "apps", "id": build.app_id},
    }
    relationships: Json = {name: {"links": {"related": f"{self_link}/{name}"}} for name in related}
    for name in values.get("include", []):
        nothing = name == "appStoreVersion" and build.store_state is None
        relationships[name]["data"] = None if nothing else related[name]
    for name in ("perfPowerMetrics", "diagnosticSignatures"):
        relationships[name] = {"links": {"related": f"{self_link}/{name}"}}
    return _resource("builds", build.id, attributes, relationships, self_link, values)


def _included(store: Store, builds: list[SandboxBuild], endpoint: Endpoint, values: Values) -> list[Json]:
    found: dict[str, Json] = {}
    for build in builds:
        if "preReleaseVersion" in values["include"]:
            found[_pre_release_id(build)] = _pre_release(build, endpoint, values)
        if "appStoreVersion" in values["include"] and build.store_state is not None:
            found[_store_version_id(build)] = _store_version(build, endpoint, values)
        if "app" in values["include"]:
            found[build.app_id] = _app(store.app(build.app_id), endpoint, values)
    return list(found.values())


def _pre_release(build: SandboxBuild, endpoint: Endpoint, values: Values) -> Json:
    identity = _pre_release_id(build)
    attributes = {"version": build.version, "platform": build.platform}
    self_link = f"{_root(endpoint)}/preReleaseVersions/{identity}"
    return _resource("preReleaseVersions", identity, attributes, {}, self_link, values)


def _pre_release_id(build: SandboxBuild) -> str:
    """One for all builds of a version."""
    return _version_id("preReleaseVersions", build)


def _store_version(build: SandboxBuild, endpoint: Endpoint, values: Values) -> Json:
    identity = _store_version_id(build)
    on_sale = build.store_state == "READY_FOR_DISTRIBUTION"
    attributes = {
        "platform": build.platform,
        "versionString": build.version,
        "appStoreState": "READY_FOR_SALE" if on_sale else build.store_state,
        "appVersionState": build.store_state,
    }
    self_link = f"{_root(endpoint)}/appStoreVersions/{identity}"
    return _resource("appStoreVersions", identity, attributes, {}, self_link, values)


def _store_version_id(build: SandboxBuild) -> str:
    return _version_id("appStoreVersions", build)


def _version_id(kind: str, build: SandboxBuild) -> str:
    name = f"{kind}/{build.app_id}/{build.platform}/{build.version}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _signature(signature: SandboxSignature, endpoint: Endpoint, values: Values) -> Json:
    attributes: Json = {
        "diagnosticType": signature.type,
        "signature": signature.text,
        "weight": signature.weight,
    }
    if signature.insight is not None:
        attributes["insight"] = signature.insight
    self_link = f"{_root(endpoint)}/diagnosticSignatures/{signature.id}"
    logs = {"links": {"self": f"{self_link}/relationships/logs", "related": f"{self_link}/logs"}}
    return _resource("diagnosticSignatures", signature.id, attributes, {"logs": logs}, self_link, values)


def _resource(
    kind: str, identity: str, attributes: Json, relationships: Json, self_link: str, values: Values
) -> Json:
    wanted = values.get(f"fields[{kind}]", [*attributes, *relationships])
    return {
        "type": kind,
        "id": identity,
        "attributes": {name: value for name, value in attributes.items() if name in wanted},
        "relationships": {name: value for name, value in relationships.items() if name in wanted},
        "links": {"self": self_link},
    }


def _root(endpoint: Endpoint) -> str:
    return endpoint.url[: endpoint.url.index("/v1/") + 3]
