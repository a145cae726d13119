from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.appstore.jsonapi import (
    App,
    Build,
    error_summary,
    is_safe_id,
    next_link,
    parse_apps,
    parse_builds,
    printable,
)

# AppVersionState and AppStoreVersionState of Apple's OpenAPI file, 4.4.1
APPLES_STATES = [
    "ACCEPTED",
    "DEVELOPER_REMOVED_FROM_SALE",
    "DEVELOPER_REJECTED",
    "IN_REVIEW",
    "INVALID_BINARY",
    "METADATA_REJECTED",
    "PENDING_APPLE_RELEASE",
    "PENDING_CONTRACT",
    "PENDING_DEVELOPER_RELEASE",
    "PREPARE_FOR_SUBMISSION",
    "PREORDER_READY_FOR_SALE",
    "PROCESSING_FOR_APP_STORE",
    "PROCESSING_FOR_DISTRIBUTION",
    "READY_FOR_DISTRIBUTION",
    "READY_FOR_REVIEW",
    "READY_FOR_SALE",
    "REJECTED",
    "REMOVED_FROM_SALE",
    "WAITING_FOR_EXPORT_COMPLIANCE",
    "WAITING_FOR_REVIEW",
    "REPLACED_WITH_NEW_VERSION",
    "NOT_APPLICABLE",
]
NOT_DOCUMENTS: list[object] = [None, [], "text", 7, {}, {"data": None}, {"data": {"id": "1"}}, {"data": "x"}]


def app(app_id: object = "1", **attributes: object) -> dict[str, object]:
    return {"type": "apps", "id": app_id, "attributes": attributes}


def build(version_id: object = "v1", **attributes: object) -> dict[str, object]:
    relation = {"preReleaseVersion": {"data": {"type": "preReleaseVersions", "id": version_id}}}
    return {"type": "builds", "id": "b1", "attributes": attributes, "relationships": relation}


def version(**attributes: object) -> dict[str, object]:
    return {"type": "preReleaseVersions", "id": "v1", "attributes": attributes}


def test_apps_are_read_in_order() -> None:
    """Each app of the document becomes one App."""
    document = {
        "data": [
            app("2", bundleId="com.example.two", name="Two"),
            app("1", bundleId="com.example.one", name="One"),
        ]
    }
    assert parse_apps(document) == [App("2", "com.example.two", "Two"), App("1", "com.example.one", "One")]


@pytest.mark.parametrize("document", NOT_DOCUMENTS)
def test_what_is_no_document_has_no_resources(document: object) -> None:
    """A document of the wrong form is empty, not an error."""
    assert parse_apps(document) == []
    assert parse_builds(document) == []
    assert next_link(document) is None


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "x",
        [],
        {},
        app(None),
        app(12),
        app(""),
        app(".."),
        app("."),
        app("1/../2"),
        app("1?x"),
        app("1%2e"),
        app("1\n"),
        app("é"),
        app("1" * 129),
        {"type": "builds", "id": "1", "attributes": {}},
    ],
)
def test_one_bad_resource_costs_that_resource(bad: object) -> None:
    """A resource without an id that is safe in a URL is left out, its neighbours stay."""
    document = {"data": [app("1", name="One"), bad, app("3", name="Three")]}
    assert [found.name for found in parse_apps(document)] == ["One", "Three"]


@pytest.mark.parametrize("attributes", [None, [], {}, {"bundleId": 5, "name": None}])
def test_one_bad_field_costs_that_field(attributes: object) -> None:
    """An app without readable attributes keeps its id."""
    assert parse_apps({"data": [{"type": "apps", "id": "1", "attributes": attributes}]}) == [App("1", "", "")]


def test_labels_are_printable_and_bounded() -> None:
    """A name with line ends, escapes or a million characters becomes one short line."""
    found = parse_apps({"data": [app(bundleId="a\u202eb\x1b[0m", name="A\r\nB " * 250_000)]})[0]
    assert found.bundle_id == "ab[0m"
    assert len(found.name) == 200
    assert found.name.startswith("A B A B")


def test_a_build_gets_its_version_from_the_included_resource() -> None:
    """Marketing version and platform come from the preReleaseVersion, the number from the build."""
    document = {
        "data": [build(version="42", uploadedDate="2026-01-02T03:04:05-07:00", expired=False)],
        "included": [{"type": "apps", "id": "v1"}, version(version="1.2.3", platform="IOS")],
    }
    assert parse_builds(document) == [Build("b1", "42", "1.2.3", "IOS", 1767348245.0, False)]


@pytest.mark.parametrize(
    ("related", "included"),
    [
        ("v1", None),
        ("v1", []),
        ("v1", [version()]),
        ("v1", [{"type": "preReleaseVersions", "id": "v1", "attributes": 3}]),
        ("other", [version(version="1.2.3", platform="IOS")]),
        (7, [version(version="1.2.3", platform="IOS")]),
    ],
)
def test_a_build_without_a_known_version_stays(related: object, included: object) -> None:
    """A missing or foreign preReleaseVersion costs version and platform, not the build."""
    found = parse_builds({"data": [build(related, version="42")], "included": included})
    assert found == [Build("b1", "42", "", "", None, False)]


@pytest.mark.parametrize("relationships", [None, [], {"preReleaseVersion": None}, {"preReleaseVersion": {}}])
def test_a_build_without_relationships_stays(relationships: object) -> None:
    """Relationships of the wrong form cost version and platform, not the build."""
    document = {"data": [{**build(version="42"), "relationships": relationships}], "included": [version()]}
    assert [found.version for found in parse_builds(document)] == [""]


@pytest.mark.parametrize(
    ("uploaded", "epoch"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05", 1767323045.0),
        ("yesterday", None),
        ("", None),
        (1767323045, None),
        (None, None),
    ],
)
def test_the_upload_time_is_read_leniently(uploaded: object, epoch: float | None) -> None:
    """A time that cannot be read is unknown; one without an offset is UTC."""
    assert parse_builds({"data": [build(uploadedDate=uploaded)]})[0].uploaded_at == epoch


@pytest.mark.parametrize(("expired", "told"), [(True, True), (False, False), (None, False), ("true", False)])
def test_only_true_is_expired(expired: object, told: bool) -> None:
    """A flag of another type counts as not set."""
    assert parse_builds({"data": [build(expired=expired)]})[0].expired is told


def store_build(data: object) -> dict[str, object]:
    return {**build(), "relationships": {"appStoreVersion": {"data": data, "links": {}}}}


STORE_VERSION = {"type": "appStoreVersions", "id": "s1"}


@pytest.mark.parametrize(
    ("state", "older_state", "released"),
    [
        ("READY_FOR_DISTRIBUTION", "READY_FOR_SALE", True),
        ("READY_FOR_DISTRIBUTION", None, True),
        (None, "READY_FOR_SALE", True),
        ("REPLACED_WITH_NEW_VERSION", "REPLACED_WITH_NEW_VERSION", True),
        ("READY_FOR_DISTRIBUTION", "DEVELOPER_REMOVED_FROM_SALE", True),
        (None, "REMOVED_FROM_SALE", True),
        ("WAITING_FOR_REVIEW", "REMOVED_FROM_SALE", True),
        ("PENDING_DEVELOPER_RELEASE", "PENDING_DEVELOPER_RELEASE", False),
        ("PENDING_APPLE_RELEASE", None, False),
        ("PROCESSING_FOR_DISTRIBUTION", "PROCESSING_FOR_APP_STORE", False),
        ("PREPARE_FOR_SUBMISSION", ["READY_FOR_SALE"], False),
        (None, "PREORDER_READY_FOR_SALE", False),
        ("A_STATE_TO_COME", "REJECTED", False),
        ("A_STATE_TO_COME", "NOT_APPLICABLE", None),
        (None, None, None),
        ({}, 5, None),
    ],
)
def test_a_build_is_released_if_its_version_was_on_the_store(
    state: object, older_state: object, released: bool | None
) -> None:
    """Either of Apple's two states tells whether a version is or was on the store; a new one does not."""
    version = {**STORE_VERSION, "attributes": {"appVersionState": state, "appStoreState": older_state}}
    document = {"data": [store_build(STORE_VERSION)], "included": [version]}
    assert [found.released for found in parse_builds(document)] == [released]


@pytest.mark.parametrize("data", ["s1", 5, [], {}, [STORE_VERSION], {"id": None}, {"id": "other"}])
def test_a_relationship_that_leads_nowhere_tells_nothing(data: object) -> None:
    """Without the included App Store version it is unknown whether the build was released."""
    version = {**STORE_VERSION, "attributes": {"appVersionState": "READY_FOR_DISTRIBUTION"}}
    assert parse_builds({"data": [store_build(data)], "included": [version]})[0].released is None


def test_a_build_without_an_app_store_version_was_not_released() -> None:
    """Null is Apple's word for a build that is in no version; a relationship of links only says nothing."""
    links_only = {**build(), "relationships": {"appStoreVersion": {"links": {}}}}
    found = parse_builds({"data": [store_build(None), links_only, build()]})
    assert [one.released for one in found] == [False, None, None]


def test_both_states_are_those_of_apples_lists() -> None:
    """Every state of the specification is known, except NOT_APPLICABLE, which says nothing."""
    known = {
        state: parse_builds(
            {
                "data": [store_build(STORE_VERSION)],
                "included": [{**STORE_VERSION, "attributes": {"appStoreState": state}}],
            }
        )[0].released
        for state in APPLES_STATES
    }
    assert [state for state, released in known.items() if released is None] == ["NOT_APPLICABLE"]
    assert sum(released is True for released in known.values()) == 5


@pytest.mark.parametrize("links", [None, [], {}, {"next": None}, {"next": ""}, {"next": 5}])
def test_no_next_link_is_the_end(links: object) -> None:
    """A missing, empty or odd link ends the pages."""
    assert next_link({"links": links}) is None


def test_the_next_link_is_returned_as_it_is() -> None:
    """The link is not interpreted here."""
    assert next_link({"links": {"next": "https://example.com/?cursor=a%2Fb"}}) == (
        "https://example.com/?cursor=a%2Fb"
    )


@pytest.mark.parametrize(
    ("document", "summary"),
    [
        ({"errors": [{"code": "X.Y", "title": "T", "detail": "D"}]}, ("X.Y", "D")),
        ({"errors": [{"code": "X", "title": "T", "detail": None}, {"code": "Z"}]}, ("X", "T")),
        ({"errors": [{"detail": "only\r\ntext\x00\x1b[31m"}]}, ("", "only text[31m")),
        ({"errors": [{"code": "X" * 500, "detail": "d" * 5000}]}, ("X" * 100, "d" * 300)),
        ({"errors": [{"code": 5, "detail": []}]}, ("", '{"errors": [{"code": 5, "detail": []}]}')),
        ({"errors": [5]}, ("", '{"errors": [5]}')),
        ({"errors": []}, ("", '{"errors": []}')),
        ({"errors": None}, ("", '{"errors": null}')),
        ([], ("", "[]")),
    ],
)
def test_errors_are_summed_up(document: object, summary: tuple[str, str]) -> None:
    """Code and text of the first error are given, short and printable; else how the body begins."""
    assert error_summary(json.dumps(document).encode()) == summary


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"<html>\n<b>Bad\tGateway", "<html> <b>Bad Gateway"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[" * 300),
    ],
)
def test_a_body_that_is_no_json_is_summed_up_by_its_beginning(body: bytes, text: str) -> None:
    """Empty, foreign, binary and deeply nested bodies never raise."""
    assert error_summary(body) == ("", text)


@given(st.binary(max_size=300))
def test_no_error_body_raises(body: bytes) -> None:
    """Whatever the body, the summary is printable."""
    code, text = error_summary(body)
    assert (code + text).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "included", "id", "type", "attributes", "relationships"]), inner
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_document_raises(document: object) -> None:
    """Whatever the document, what comes out has ids that are safe in a URL."""
    found = [app.id for app in parse_apps(document)] + [build.id for build in parse_builds(document)]
    assert all(is_safe_id(found_id) for found_id in found)


def test_printable_cuts_after_cleaning() -> None:
    """Control characters do not use up the length."""
    assert printable("\x00\x01abc", 2) == "ab"
