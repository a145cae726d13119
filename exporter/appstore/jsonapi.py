"""The JSON:API documents of App Store Connect: apps, builds, links and errors.

Pure and lenient: what cannot be read costs the field or the resource, never the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard

__all__ = [
    "App",
    "Build",
    "error_summary",
    "is_safe_id",
    "next_link",
    "parse_apps",
    "parse_builds",
    "printable",
]

_SAFE_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LONGEST_LABEL = 200
_LONGEST_CODE = 100
_LONGEST_ERROR = 300

# Apple's AppVersionState, and AppStoreVersionState, which came before it. What is in neither list, such as
# NOT_APPLICABLE and states to come, tells nothing.
_WAS_ON_STORE = frozenset(
    {
        "READY_FOR_DISTRIBUTION",
        "READY_FOR_SALE",
        "REPLACED_WITH_NEW_VERSION",
        "REMOVED_FROM_SALE",
        "DEVELOPER_REMOVED_FROM_SALE",
    }
)
_NEVER_ON_STORE = frozenset(
    {
        "ACCEPTED",
        "DEVELOPER_REJECTED",
        "IN_REVIEW",
        "INVALID_BINARY",
        "METADATA_REJECTED",
        "PENDING_APPLE_RELEASE",
        "PENDING_CONTRACT",
        "PENDING_DEVELOPER_RELEASE",
        "PREORDER_READY_FOR_SALE",
        "PREPARE_FOR_SUBMISSION",
        "PROCESSING_FOR_APP_STORE",
        "PROCESSING_FOR_DISTRIBUTION",
        "READY_FOR_REVIEW",
        "REJECTED",
        "WAITING_FOR_EXPORT_COMPLIANCE",
        "WAITING_FOR_REVIEW",
    }
)


@dataclass(frozen=True)
class App:
    """An app. `bundle_id` and `name` are empty where the answer did not tell them."""

    id: str
    bundle_id: str
    name: str


@dataclass(frozen=True)
class Build:
    """A build of an app.

    `number` is the build number (`CFBundleVersion`), `version` the marketing version and `platform` Apple's
    word for it (`IOS`, `MAC_OS`, …); each is empty where the answer did not tell it. `uploaded_at` is in
    seconds since the epoch, None where unknown. `expired` is TestFlight's sense: 90 days after the upload.
    `released` is True if the build is or was on the App Store, False if it never was, None where the answer
    did not tell.
    """

    id: str
    number: str
    version: str
    platform: str
    uploaded_at: float | None
    expired: bool
    released: bool | None = None


def parse_apps(document: object) -> list[App]:
    """Return the apps of a `/v1/apps` document, in its order."""
    return [
        App(app_id, _label(attributes.get("bundleId")), _label(attributes.get("name")))
        for app_id, attributes, _ in _resources(document, "data", "apps")
    ]


def parse_builds(document: object) -> list[Build]:
    """Return the builds of a `/v1/builds` document, in its order.

    Version and platform take `include=preReleaseVersion`, `released` takes `include=appStoreVersion`.
    """
    versions = _included(document, "preReleaseVersions")
    store_versions = _included(document, "appStoreVersions")
    return [
        _build(
            build_id,
            attributes,
            versions.get(_related_id(resource, "preReleaseVersion"), {}),
            _released(resource, store_versions),
        )
        for build_id, attributes, resource in _resources(document, "data", "builds")
    ]


def next_link(document: object) -> str | None:
    """Return `links.next`, None on the last page."""
    link = _mapping(_mapping(document).get("links")).get("next")
    return link if isinstance(link, str) and link else None


def error_summary(body: bytes) -> tuple[str, str]:
    """Return code and text of the first entry in `{"errors": […]}`, both short and printable.

    The code is empty when the body is not such a document; the text is then how the body begins.
    """
    try:
        errors = _mapping(json.loads(body)).get("errors")
    except (ValueError, RecursionError):
        errors = None
    first = _mapping(errors[0]) if isinstance(errors, list) and errors else {}
    code = _text(first.get("code"), _LONGEST_CODE)
    text = _text(first.get("detail"), _LONGEST_ERROR) or _text(first.get("title"), _LONGEST_ERROR)
    if code or text:
        return code, text
    return "", printable(body[: 4 * _LONGEST_ERROR].decode("utf-8", "replace"), _LONGEST_ERROR)


def is_safe_id(value: object) -> TypeGuard[str]:
    """Tell whether a value is an id that can be put into a URL's path as it is."""
    return isinstance(value, str) and _SAFE_ID.fullmatch(value) is not None and value.strip(".") != ""


def printable(text: str, longest: int) -> str:
    """Return text on one line, without control characters, cut to `longest` characters."""
    spaced = " ".join(text[: 4 * longest].split())
    return "".join(character for character in spaced if character.isprintable())[:longest]


def _resources(
    document: object, member: str, kind: str
) -> Iterator[tuple[str, Mapping[str, object], Mapping[str, object]]]:
    """Yield id, attributes and the whole of each usable resource of a kind."""
    listed = _mapping(document).get(member)
    for entry in listed if isinstance(listed, list) else []:
        resource = _mapping(entry)
        resource_id = resource.get("id")
        if resource.get("type") == kind and is_safe_id(resource_id):
            yield resource_id, _mapping(resource.get("attributes")), resource


def _included(document: object, kind: str) -> dict[str, Mapping[str, object]]:
    return {included_id: attributes for included_id, attributes, _ in _resources(document, "included", kind)}


def _build(
    build_id: str,
    attributes: Mapping[str, object],
    version: Mapping[str, object],
    released: bool | None,
) -> Build:
    return Build(
        id=build_id,
        number=_label(attributes.get("version")),
        version=_label(version.get("version")),
        platform=_label(version.get("platform")),
        uploaded_at=_epoch(attributes.get("uploadedDate")),
        expired=attributes.get("expired") is True,
        released=released,
    )


def _released(build: Mapping[str, object], store_versions: Mapping[str, Mapping[str, object]]) -> bool | None:
    relation = _relation(build, "appStoreVersion")
    if "data" in relation and relation["data"] is None:
        return False
    version = store_versions.get(_related_id(build, "appStoreVersion"), {})
    states = {_label(version.get(name)) for name in ("appVersionState", "appStoreState")}
    if states & _WAS_ON_STORE:
        return True
    return False if states & _NEVER_ON_STORE else None


def _relation(resource: Mapping[str, object], name: str) -> Mapping[str, object]:
    return _mapping(_mapping(resource.get("relationships")).get(name))


def _related_id(resource: Mapping[str, object], name: str) -> str:
    related = _mapping(_relation(resource, name).get("data")).get("id")
    return related if isinstance(related, str) else ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _label(value: object) -> str:
    return _text(value, _LONGEST_LABEL)


def _text(value: object, longest: int) -> str:
    return printable(value, longest) if isinstance(value, str) else ""


def _epoch(value: object) -> float | None:
    """Return an ISO 8601 time in seconds since the epoch; one without an offset is taken for UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return None
