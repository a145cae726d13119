from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.jsonapi import App
from exporter.appstore.plan import Plan, Step, plan

A, B, C = (App(name, f"com.example.{name}", name.upper()) for name in "abc")


def steps(planned: Plan) -> list[str]:
    return [str(step).removesuffix(step.app.bundle_id) + step.app.id for step in planned.steps]


def test_metrics_come_before_builds() -> None:
    """All apps' own metrics come first; builds cost their list and one request each."""
    planned = plan([A, B], 3, {}, 100)
    assert planned.steps == (
        Step("metrics", A, 1),
        Step("metrics", B, 1),
        Step("builds", A, 4),
        Step("builds", B, 4),
    )
    assert (planned.cost, planned.deferred) == (10, ())


def test_no_builds_are_asked_for_unless_wanted() -> None:
    """Without builds there are only the apps' own metrics."""
    assert steps(plan([B, A], 0, {}, 100)) == ["metrics of a", "metrics of b"]


@pytest.mark.parametrize(
    ("last_asked", "order"),
    [
        ({}, "abc"),
        ({"a": 5, "b": 5, "c": 5}, "abc"),
        ({"a": 9, "b": 7, "c": 8}, "bca"),
        ({"a": 1}, "bca"),
        ({"a": 2, "b": 1, "c": 3, "gone": 9}, "bac"),
    ],
)
def test_the_app_asked_longest_ago_comes_first(last_asked: dict[str, int], order: str) -> None:
    """An app that never answered comes before all others; among equals, the id decides."""
    assert [step.app.id for step in plan([C, A, B], 0, last_asked, 100).steps] == list(order)


@pytest.mark.parametrize(
    ("allowance", "done"),
    [(-1, 0), (0, 0), (1, 1), (2, 2), (3, 2), (5, 2), (6, 3), (9, 3), (10, 4), (11, 4)],
)
def test_the_budget_cuts_the_end(allowance: int, done: int) -> None:
    """Steps are taken in their order until one does not fit; that one and all after it wait."""
    everything = plan([A, B], 3, {}, 100).steps
    planned = plan([A, B], 3, {}, allowance)
    assert planned == Plan(everything[:done], everything[done:])


def test_no_apps_no_steps() -> None:
    """An account without apps has nothing to plan, whatever it answered once."""
    assert plan([], 3, {"gone": 5}, 100) == Plan((), ())


@settings(deadline=None)
@given(
    st.integers(0, 12),
    st.integers(0, 5),
    st.dictionaries(st.integers(0, 12).map(str), st.integers(0, 99)),
    st.integers(-5, 80),
)
def test_each_step_is_planned_once_within_the_budget(
    count: int, builds: int, last_asked: dict[str, int], allowance: int
) -> None:
    """Done and deferred are together all that is wanted; what is done fits."""
    apps = [App(str(number), f"app.{number}", "") for number in range(count)]
    planned = plan(apps, builds, last_asked, allowance)
    every = planned.steps + planned.deferred
    assert planned.cost <= max(0, allowance)
    assert sorted(step.app.id for step in every if step.what == "metrics") == sorted(app.id for app in apps)
    assert len(every) == len(set(every)) == count * (2 if builds else 1)


@pytest.mark.parametrize(
    ("count", "builds", "allowance"), [(7, 0, 2), (7, 3, 1), (3, 3, 7), (5, 1, 7), (2, 9, 12)]
)
def test_nothing_waits_for_ever(count: int, builds: int, allowance: int) -> None:
    """Over successive polls with the same small budget, each affordable step gets its turn."""
    apps = [App(str(number), f"app.{number}", "") for number in range(count)]
    last_asked: dict[str, int] = {}
    done: set[tuple[str, str]] = set()
    now = 1_700_000_000_000_000_000
    for _ in range(60):
        for step in plan(apps, builds, last_asked, allowance).steps:
            now += 256_000_000
            done.add((step.what, step.app.id))
            if step.what == "metrics":
                last_asked[step.app.id] = now
        now += 3_600_000_000_000
    kinds = ("metrics", "builds") if allowance >= count + 1 + builds and builds else ("metrics",)
    assert done == {(kind, app.id) for kind in kinds for app in apps}
