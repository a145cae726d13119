"""What the issue wants the sandbox to serve: each awkward case, as it comes over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
import pytest

from exporter.sandbox import AppStoreSandbox
from exporter.sandbox.tables import APPS
from tests.sandbox.test_sandbox_appstore import opened
from tests.sandbox.test_sandbox_diagnostics_http import all_pages

Json = dict[str, Any]
DOCUMENTED = {"HANGS", "LAUNCHES", "DISK_WRITES"}
TREES: dict[str, Callable[[Json], bool]] = {
    "no tree": lambda log: "callStackTree" not in log,
    "no tree in the list": lambda log: log.get("callStackTree") == [],
    "no stack in the tree": lambda log: stacks(log) == [],
    "no frame in the stack": lambda log: stacks(log) == [{"callStackRootFrames": []}],
    "tree as an object, as in MetricKit": lambda log: isinstance(log.get("callStackTree"), dict),
    "a list with a tree": lambda log: bool(stacks(log)),
}


def stacks(log: Json) -> list[Json] | None:
    """The stacks of a log's first tree; None without a list of trees."""
    trees = log.get("callStackTree")
    return trees[0]["callStacks"] if isinstance(trees, list) and trees else None


def listed(client: httpx.Client, sandbox: AppStoreSandbox, app_id: str, builds: int) -> list[Json]:
    """The signatures of the newest builds on the store, as resources."""
    released = [b for b in sandbox.store.builds(app_id, sandbox.day()) if b.store_state][:builds]
    return [
        resource
        for build in released
        for resource in all_pages(client, f"/v1/builds/{build.id}/diagnosticSignatures?limit=200")
    ]


@cache
def served() -> tuple[tuple[Json, Json], ...]:
    """The signatures of the newest three builds of each app on day 10, each with its `diagnosticLogs`."""
    with opened(day=lambda: 10.0, minute_limit=2000) as (sandbox, client):
        found = [resource for app in APPS for resource in listed(client, sandbox, app.id, 3)]
        return tuple(
            (r["attributes"], client.get(f"/v1/diagnosticSignatures/{r['id']}/logs").json()) for r in found
        )


def all_logs() -> list[Json]:
    products = [product for _, document in served() for product in document["productData"]]
    return [log for product in products for log in product["diagnosticLogs"]]


def test_signatures_without_logs_are_served() -> None:
    """Without a product, and with a product that has no logs; most have some."""
    shapes = Counter(
        len(document["productData"][0]["diagnosticLogs"]) if document["productData"] else None
        for _, document in served()
    )
    assert shapes[None] > 0
    assert shapes[0] > 0
    assert shapes.total() > 3 * (shapes[None] + shapes[0])


def test_logs_without_metadata_are_served() -> None:
    """The field is missing, or empty; most logs have it."""
    kinds = Counter(
        bool(log["diagnosticMetaData"]) if "diagnosticMetaData" in log else None for log in all_logs()
    )
    assert kinds[None] > 0
    assert kinds[False] > 0
    assert kinds[True] > 3 * (kinds[None] + kinds[False])


@pytest.mark.parametrize("shape", TREES)
def test_each_shape_of_a_tree_is_served(shape: str) -> None:
    """Trees that are missing or empty at each level, the other shape of the field, and whole ones."""
    assert any(map(TREES[shape], all_logs()))


def test_types_that_nobody_has_heard_of_are_served() -> None:
    """A type that Apple does not document stands beside all three that it does."""
    kinds = {attributes["diagnosticType"] for attributes, _ in served()}
    assert kinds > DOCUMENTED


def test_weights_are_served_on_either_scale() -> None:
    """The weights of a type in a build add up to about 1 in one account's app, to about 100 in another's."""
    sums: dict[str, Counter[str]] = {}
    with opened(day=lambda: 10.0) as (sandbox, client):
        for app in APPS:
            sums[app.id] = Counter()
            for resource in listed(client, sandbox, app.id, 1):
                attributes = resource["attributes"]
                sums[app.id][attributes["diagnosticType"]] += attributes["weight"]
    bank, _, trails = (sums[app.id] for app in APPS)
    assert all(0.7 < bank[kind] < 1.05 for kind in DOCUMENTED)
    assert all(70 < trails[kind] < 105 for kind in DOCUMENTED)


def test_signatures_come_and_go_from_day_to_day() -> None:
    """Of one build some are listed anew in the course of its weeks, some no longer, most as before."""
    today = [2.0]
    came, went, stayed = set[str](), set[str](), set[str]()
    with opened(day=lambda: today[0]) as (sandbox, client):
        build = next(b for b in sandbox.store.builds(APPS[0].id, 2) if b.store_state)
        before = set[str]()
        while today[0] < 30:
            path = f"/v1/builds/{build.id}/diagnosticSignatures?limit=200"
            now = {resource["id"] for resource in all_pages(client, path)}
            if before:
                came, went, stayed = came | (now - before), went | (before - now), stayed | (now & before)
            before = now
            today[0] += 1
    assert came
    assert went
    assert len(stayed) > len(went)
