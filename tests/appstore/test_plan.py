from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.jsonapi import App, Build
from exporter.appstore.plan import (
    IMPORTANCE,
    LONGEST_WAIT,
    NOTHING,
    Agenda,
    Key,
    Past,
    Plan,
    Step,
    What,
    is_offered,
    is_overdue,
    plan,
)

A, B, C = (App(name, f"com.example.{name}", name.upper()) for name in "abc")
NOW = 1_700_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR


def build(number: int) -> Build:
    return Build(f"b{number}", str(number), f"{number}.0", "IOS", None, False)


def logs(signature: str, *, weight: float = 0.0, age: int = 0, app: App = A) -> Step:
    return Step("logs", app, builds=(build(1),), signature=signature, weight=weight, age=age)


def names(steps: Iterable[Step]) -> list[str]:
    return [f"{step.what} {step.key.id or step.app.id}" for step in steps]


def order(steps: Iterable[Step], past: dict[Key, Past] | None = None) -> list[str]:
    """In which order steps are taken if everything fits."""
    planned = plan(steps, past or {}, NOW, 10_000)
    assert not planned.deferred
    return names(planned.steps)


ONE_OF_EACH = (
    Step("metrics", A),
    Step("overview", A),
    Step("builds", A),
    Step("signatures", A, cost=3, builds=(build(1), build(2), build(3))),
    logs("s1"),
    Step("build_metrics", A, builds=(build(1),)),
)


def test_the_order_of_importance() -> None:
    """Metrics, overview, builds, signatures, logs, and the metrics of builds last."""
    expected = ["metrics a", "overview a", "builds a", "signatures a", "logs s1", "build_metrics b1"]
    assert order(reversed(ONE_OF_EACH)) == expected
    assert [step.what for step in ONE_OF_EACH] == list(IMPORTANCE)


def test_importance_comes_before_the_app() -> None:
    """What is more important is asked for of all apps first."""
    both = [Step(what, app) for app in (A, B) for what in IMPORTANCE[:3]]
    assert order(both) == ["metrics a", "metrics b", "overview a", "overview b", "builds a", "builds b"]


def test_the_newest_versions_then_the_heaviest_signatures() -> None:
    """A heavier signature of an older version comes after every one of the newest."""
    steps = [
        logs("old-heavy", weight=0.9, age=1),
        logs("light", weight=0.1),
        logs("heavy", weight=0.8),
        logs("none"),
    ]
    assert order(steps) == ["logs heavy", "logs light", "logs none", "logs old-heavy"]


@pytest.mark.parametrize(
    ("asked_at", "expected"),
    [
        ({}, "abc"),
        ({"a": 5.0, "b": 5.0, "c": 5.0}, "abc"),
        ({"a": 9.0, "b": 7.0, "c": 8.0}, "bca"),
        ({"a": 1.0}, "bca"),
        ({"a": 2.0, "b": 1.0, "c": 3.0, "gone": 9.0}, "bac"),
    ],
)
def test_what_was_asked_for_longest_ago_comes_first(asked_at: dict[str, float], expected: str) -> None:
    """Among equals, what was never asked for comes first, and then the id decides."""
    past = {Key(app, "metrics"): Past(asked_at=at) for app, at in asked_at.items()}
    assert order([Step("metrics", app) for app in (C, A, B)], past) == [f"metrics {app}" for app in expected]


def test_what_was_not_answered_goes_behind_its_kind() -> None:
    """Two that always fail would end the turn of their kind poll after poll; they come last in it."""
    steps = [logs("heavy", weight=0.9), logs("light", weight=0.1), Step("metrics", A), Step("metrics", B)]
    past = {steps[0].key: Past(NOW - HOUR, failed=True), steps[2].key: Past(NOW - DAY, failed=True)}
    assert order(steps, past) == ["metrics b", "metrics a", "logs light", "logs heavy"]


def test_what_has_waited_for_more_than_a_day_takes_turns() -> None:
    """The longest wait leads, whatever is being waited for, then the most important, then the next wait.

    Exactly a day, as a schedule has it, is not yet more.
    """
    past = {
        ONE_OF_EACH[5].key: Past(NOW, NOW - DAY - 1),
        ONE_OF_EACH[4].key: Past(None, NOW - 3 * DAY),
        ONE_OF_EACH[3].key: Past(None, NOW - LONGEST_WAIT),
    }
    assert order(ONE_OF_EACH, past) == [
        "logs s1",
        "metrics a",
        "build_metrics b1",
        "overview a",
        "builds a",
        "signatures a",
    ]


@pytest.mark.parametrize(
    ("waited", "overdue"),
    [
        (None, False),
        (0.0, False),
        (LONGEST_WAIT, False),
        (LONGEST_WAIT + 1, True),
        (-1.0, True),
        (-1e9, True),
    ],
)
def test_when_a_step_is_overdue(waited: float | None, overdue: bool) -> None:
    """After a day; and where the clock went back, since nobody knows then for how long."""
    past = NOTHING if waited is None else Past(waits_since=NOW - waited)
    assert is_overdue(past, NOW) == overdue


@pytest.mark.parametrize(
    ("ago", "offered"),
    [(None, True), (0.0, False), (19 * HOUR, False), (20 * HOUR, True), (-1.0, True)],
)
def test_when_to_ask_again_for_what_was_refused(ago: float | None, offered: bool) -> None:
    """Once a day, with some room for the schedule's jitter; and where the clock went back."""
    past = NOTHING if ago is None else Past(refused_at=NOW - ago)
    assert is_offered(past, NOW) == offered


@pytest.mark.parametrize(
    ("allowance", "done", "cost"),
    [(-1, 0, 0), (0, 0, 0), (1, 1, 1), (3, 3, 3), (6, 4, 6), (7, 5, 7), (8, 6, 8), (99, 6, 8)],
)
def test_the_budget_cuts_the_end(allowance: int, done: int, cost: int) -> None:
    """Steps are taken until one does not fit; that one and all after it wait, even if they would fit."""
    planned = plan(ONE_OF_EACH, {}, NOW, allowance)
    assert planned == Plan(ONE_OF_EACH[:done], ONE_OF_EACH[done:])
    assert planned.cost == cost


@pytest.mark.parametrize("allowance", [4, 5])
def test_signatures_are_asked_for_as_far_as_the_budget_goes(allowance: int) -> None:
    """Of one app's builds those that fit are asked about, in their order; the others wait, and all after."""
    whole, now = ONE_OF_EACH[3], allowance - 3
    first = replace(whole, builds=whole.builds[:now], cost=now)
    later = replace(whole, builds=whole.builds[now:], cost=3 - now)
    planned = plan(ONE_OF_EACH, {}, NOW, allowance)
    assert planned == Plan((*ONE_OF_EACH[:3], first), (later, *ONE_OF_EACH[4:]))
    assert planned.cost == allowance
    assert first.key == later.key == whole.key


@pytest.mark.parametrize("allowance", [1, 4, 9, 10])
def test_what_no_budget_suffices_for_is_set_aside(allowance: int) -> None:
    """A listing of ten pages does not hold up the others where all of the budget is less."""
    large = Step("builds", B, cost=5)
    steps = [large, *(Step("metrics", App(str(number), "", "")) for number in range(4)), Step("logs", B)]
    planned = plan(steps, {}, NOW, allowance)
    assert planned.cost == allowance
    assert (large in planned.steps) == (allowance >= 9)


def test_no_steps_no_plan() -> None:
    """Nothing to ask for is a plan, too."""
    assert plan([], {}, NOW, 100) == Plan((), ())


@pytest.mark.parametrize(
    ("step", "key", "text"),
    [
        (ONE_OF_EACH[0], Key("a", "metrics"), "metrics of com.example.a"),
        (ONE_OF_EACH[3], Key("a", "signatures"), "signatures of com.example.a"),
        (ONE_OF_EACH[4], Key("a", "logs", "s1"), "logs of signature s1 of com.example.a"),
        (ONE_OF_EACH[5], Key("a", "build_metrics", "b1"), "build metrics of com.example.a"),
    ],
)
def test_what_a_step_is_known_by(step: Step, key: Key, text: str) -> None:
    """A key is the same poll after poll; a text names step and app."""
    assert (step.key, str(step)) == (key, text)


steps_drawn = st.lists(
    st.builds(
        lambda step: replace(step, cost=len(step.builds)) if step.what == "signatures" else step,
        st.builds(
            Step,
            st.sampled_from(IMPORTANCE),
            st.sampled_from([A, B, C]),
            cost=st.integers(1, 5),
            builds=st.sampled_from([(build(1),), (build(2),), (build(3), build(1))]),
            signature=st.sampled_from(["", "s1", "s2"]),
            weight=st.sampled_from([0.0, 0.5, 50.0]),
            age=st.integers(0, 2),
        ),
    ),
    max_size=15,
    unique_by=lambda step: step.key,
)
times = st.none() | st.floats(NOW - 3 * DAY, NOW + DAY)


@settings(deadline=None)
@given(
    steps_drawn,
    st.lists(st.builds(Past, times, times, times, failed=st.booleans()), min_size=15, max_size=15),
    st.data(),
)
def test_each_step_is_planned_once_within_the_budget(
    steps: list[Step], pasts: list[Past], data: st.DataObject
) -> None:
    """Done and deferred are together all that is wanted; what is done fits; the input's order is nothing."""
    past = {step.key: before for step, before in zip(steps, pasts, strict=False)}
    allowance = data.draw(st.integers(-2, 60))
    planned = plan(steps, past, NOW, allowance)
    assert planned.cost <= max(0, allowance)
    found = planned.steps + planned.deferred
    assert {step.key for step in found} == {step.key for step in steps}
    assert sum(step.cost for step in found) == sum(step.cost for step in steps)
    assert len(found) - len(steps) == len(
        {step.key for step in planned.steps} & {d.key for d in planned.deferred}
    )
    assert plan(data.draw(st.permutations(steps)), past, NOW, allowance) == planned


@settings(deadline=None)
@given(steps_drawn, steps_drawn)
def test_an_agenda_is_a_plan_that_grows(first: list[Step], later: list[Step]) -> None:
    """Steps come out in their order, each key once, those added on the way in their place among the rest."""
    agenda = Agenda({}, NOW)
    agenda.add(first)
    done = [agenda.pop()]
    agenda.add([*later, *first])
    rest = agenda.rest()
    found = [step for step in [*done, *rest] if step is not None]
    assert {step.key for step in found} == {step.key for step in [*first, *later]}
    assert len({step.key for step in found}) == len(found)
    assert rest == list(plan(rest, {}, NOW, 10_000).steps)
    assert agenda.pop() is None
    assert agenda.rest() == []


def test_follow_ups_fall_into_place() -> None:
    """What a step brings up is taken where it belongs: before less important steps that wait already."""
    agenda = Agenda({}, NOW)
    agenda.add([Step("builds", A), Step("build_metrics", A, builds=(build(1),)), Step("builds", B)])
    assert str(agenda.pop()) == "builds of com.example.a"
    agenda.add([ONE_OF_EACH[3], logs("light", weight=0.1), logs("heavy", weight=0.9)])
    agenda.add([Step("metrics", B)])
    assert names(agenda.rest()) == [
        "metrics b",
        "builds b",
        "signatures a",
        "logs heavy",
        "logs light",
        "build_metrics b1",
    ]


def test_a_key_is_done_once() -> None:
    """What was added before, done or not, is not added again, however it looks by then."""
    agenda = Agenda({}, NOW)
    agenda.add([logs("s1", weight=0.1), logs("s1", weight=0.9), logs("s2", weight=0.5)])
    assert [agenda.pop(), agenda.pop()] == [logs("s2", weight=0.5), logs("s1", weight=0.1)]
    agenda.add([logs("s1", weight=0.7), logs("s3")])
    assert agenda.rest() == [logs("s3")]


def test_an_agenda_knows_the_past() -> None:
    """What is overdue comes first out of an agenda, too."""
    late = logs("late")
    agenda = Agenda({late.key: Past(None, NOW - 2 * DAY)}, NOW)
    agenda.add([Step("metrics", A), late])
    assert agenda.pop() == late


@dataclass
class Polls:
    """Polls of some apps as `exporter.cycle` makes them, with a budget for each.

    What is asked for is remembered in `asked`, in the order of the polls: (poll, key).
    """

    apps: tuple[App, ...]
    signatures: int
    versions: int = 2
    past: dict[Key, Past] = field(default_factory=dict)
    asked: list[tuple[int, Key]] = field(default_factory=list)

    def known(self, app: App) -> list[Step]:
        every: list[What] = ["metrics", "overview", "builds"]
        return [
            *(Step(what, app) for what in every),
            *self.below(app, "builds"),
            *self.below(app, "signatures"),
        ]

    def below(self, app: App, what: What) -> list[Step]:
        """What a step brings up. The logs are of signatures that change each time."""
        builds = tuple(build(number) for number in range(self.versions))
        if what == "builds":
            of_builds = [
                Step("build_metrics", app, builds=(item,), age=age) for age, item in enumerate(builds)
            ]
            return [Step("signatures", app, cost=len(builds), builds=builds), *of_builds]
        ids = range(self.signatures) if what == "signatures" else ()
        return [logs(f"{app.id}{n}", weight=1 / (n + 1), age=n % self.versions, app=app) for n in ids]

    def poll(self, number: int, now: float, allowance: int) -> None:
        agenda = Agenda(self.past, now)
        agenda.add(step for app in self.apps for step in self.known(app))
        while (step := agenda.pop()) is not None:
            if step.cost > allowance:
                for waiting in [step, *agenda.rest()]:
                    before = self.past.get(waiting.key, NOTHING)
                    since = now if before.waits_since is None else before.waits_since
                    self.past[waiting.key] = before._replace(waits_since=since)
                return
            allowance -= step.cost
            self.past[step.key] = Past(asked_at=now)
            self.asked.append((number, step.key))
            agenda.add(self.below(step.app, step.what))


@pytest.mark.parametrize("allowance", [2, 3, 5, 7])
@pytest.mark.parametrize("interval", [HOUR, 6 * HOUR, DAY])
def test_nothing_waits_for_ever(allowance: int, interval: float) -> None:
    """With a budget below what the metrics alone cost, each step of each kind gets its turn again and again.

    Logs come up with signatures and these with builds: three waits of a day, and two queues of everything.
    """
    polls = Polls(tuple(App(str(number), f"app.{number}", "") for number in range(8)), signatures=3)
    known = [step for app in polls.apps for step in polls.known(app)]
    queue = sum(step.cost for step in known) // (allowance - 1)  # what does not fit may leave one unused
    longest = 2 * queue + 3 * int(LONGEST_WAIT / interval + 2)
    for number in range(2 * longest):
        polls.poll(number, NOW + number * interval, allowance)
    for half in (range(longest), range(longest, 2 * longest)):
        assert {key for number, key in polls.asked if number in half} == {step.key for step in known}


def test_the_important_is_not_crowded_out() -> None:
    """With a budget that suffices for what is important, that is asked for in every poll."""
    polls = Polls((A, B), signatures=40)
    for number in range(60):
        polls.poll(number, NOW + number * 6 * HOUR, 30)
    metrics = [number for number, key in polls.asked if key == Key("a", "metrics")]
    assert len(metrics) > 30


def test_what_is_overdue_does_not_crowd_out_the_important() -> None:
    """A first start with far more logs than budget: the metrics come in every poll all the same."""
    polls = Polls((A,), signatures=150)
    for number in range(30):
        polls.poll(number, NOW + number * 6 * HOUR, 12)
    assert [number for number, key in polls.asked if key == Key("a", "metrics")] == list(range(30))
    assert len({key for _, key in polls.asked if key.what == "logs"}) == 150
