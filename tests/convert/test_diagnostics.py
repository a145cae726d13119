"""Signatures and logs → gauges, histograms and events.

Whole answers in, whole points and events out: `golden_diagnostics/*.in.json` → `*.out.json`. To accept a
change of the output on purpose: `UPDATE_GOLDEN=1 pytest tests/convert`, then read the difference.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.sdk.metrics.export import Metric, NumberDataPoint

from exporter.appstore.payloads.diagnostics import (
    Log,
    LogInsight,
    Signature,
    SignatureLogs,
    parse_logs,
    parse_signatures,
)
from exporter.appstore.payloads.overview import Overview, TopSignature, parse_overview
from exporter.convert import recognition
from exporter.convert.catalogue import DIAGNOSTIC_EVENT, DIAGNOSTIC_METRICS, LEFT_OUT
from exporter.convert.diagnostics import (
    Context,
    ConvertedGauges,
    ConvertedLogs,
    Observation,
    Origin,
    Versions,
    convert_logs,
    convert_occurrences,
    convert_signatures,
    device_model,
    diagnostic_distributions,
    knows_earlier,
    new_share,
    new_signatures,
    os_of,
    problems_of,
    seen_in,
    signature_attributes,
)
from exporter.convert.distributions import chained
from exporter.errors import BadAnswer
from tests.convert.frames import recognise

GOLDEN = Path(__file__).parent / "golden_diagnostics"
OBSERVED_AT = 1_700_000_000_000_000_000
ORIGIN = Origin("2.1", "210", "iOS")
METRICS = {metric.name: metric for metric in DIAGNOSTIC_METRICS}
SIGNATURE_CASES = ("signatures_pages", "signatures_cold_start")
LOG_CASES = ("logs_of_each_type", "logs_twice", "logs_over_versions")


# Whole answers


@pytest.mark.parametrize("name", SIGNATURE_CASES)
def test_signatures_become_these_points(name: str) -> None:
    """Every gauge of a build's signatures is as the golden file spells it out, and so is what is none."""
    case = _case(name)
    origin = Origin(**case["origin"])
    parsed = parse_signatures(case["pages"])
    problems = _problems(case)
    new = new_signatures(parsed.signatures, origin.version, problems)
    new = new if knows_earlier(problems, origin.version) else frozenset()
    converted = convert_signatures(
        parsed.signatures,
        origin,
        new=new,
        top=int(case["top"]),
        series_cap=int(case["series_cap"]),
        observed_at=OBSERVED_AT,
    )
    _compare(name, {"unread": dict(sorted(parsed.left_out.items())), **_plain_gauges(converted)})


def test_an_overview_becomes_these_points() -> None:
    """Every count of an overview's signatures is as the golden file spells it out."""
    case = _case("overview")
    converted = convert_occurrences(
        parse_overview(case["document"]),
        {},
        top=int(case["top"]),
        series_cap=int(case["series_cap"]),
        observed_at=OBSERVED_AT,
    )
    _compare("overview", _plain_gauges(converted))


@pytest.mark.parametrize("name", LOG_CASES)
def test_logs_become_these_events(name: str) -> None:
    """Every event and histogram of several answers, one after the other, is as the golden file spells it out.

    In it log ids and fingerprints have names, in the order of their appearance: the same name is the same.
    """
    case = _case(name)
    memory, names = Memory(_problems(case)), Names()
    taken = [memory.take(step) for step in case["steps"]]
    histograms, _ = chained(
        diagnostic_distributions(item for step in taken for item in step.observations), {}, OBSERVED_AT
    )
    result = {
        "events": [
            {"step": number, **_plain_event(event, names)}
            for number, step in enumerate(taken)
            for event in step.events
        ],
        "identities": [[names.of("log", item.hex()) for item in step.identities] for step in taken],
        "left_out": [dict(sorted(step.left_out.items())) for step in taken],
        "problems": [
            {names.of("problem", problem): list(versions) for problem, versions in step.problems.items()}
            for step in taken
        ],
        "histograms": [line for metric in histograms for line in _lines(metric)],
    }
    _compare(name, result)


def test_no_golden_file_is_forgotten() -> None:
    """Each file in the folder belongs to a case."""
    names = (*SIGNATURE_CASES, *LOG_CASES, "overview")
    wanted = {f"{name}.{end}.json" for name in names for end in ("in", "out")}
    assert {path.name for path in GOLDEN.iterdir()} == wanted


@dataclass
class Memory:
    """What the state file remembers between answers."""

    problems: dict[str, Versions] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)

    def take(self, step: Mapping[str, Any]) -> ConvertedLogs:
        """Converts an answer as `exporter.intake` does, and remembers what it brought."""
        told, origin = step["signature"], Origin(**step["origin"])
        signature = Signature(told["id"], told["type"], told["text"], told["weight"], None, ())
        for problem in problems_of([signature]).values():
            self.problems[problem] = seen_in(self.problems.get(problem), origin.version)
        line = step.get("line")
        context = Context(
            signature,
            origin,
            step.get("file", ""),
            None if line is None else int(line),
            self.problems,
            knows_earlier(self.problems, origin.version),
        )
        products = parse_logs(step["document"]).products
        converted = convert_logs(products, context, seen=self.seen, observed_at=OBSERVED_AT)
        self.seen.update(converted.identities)
        self.problems = {**self.problems, **converted.problems}
        return converted


class Names:
    """Names for what nobody can work out by hand, in the order of appearance."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._met: Counter[str] = Counter()

    def of(self, kind: str, digest: str) -> str:
        if (kind, digest) not in self._names:
            self._met[kind] += 1
            self._names[kind, digest] = f"{kind} {self._met[kind]}"
        return self._names[kind, digest]


def _case(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.in.json").read_text(), parse_int=float)


def _problems(case: Mapping[str, Any]) -> dict[str, Versions]:
    return {
        recognition.problem(item["type"], item["name"]): Versions(item["first"], item["last"])
        for item in case["problems"]
    }


def _plain_gauges(converted: ConvertedGauges) -> dict[str, Any]:
    return {
        "gauges": [line for metric in converted.gauges for line in _lines(metric)],
        "left_out": dict(sorted(converted.left_out.items())),
        "series": dict(sorted(converted.series.items())),
        "capped": dict(sorted(converted.capped.items())),
    }


def _plain_event(event: LogRecord, names: Names) -> dict[str, Any]:
    attributes = dict(event.attributes or {})
    for kind, name in (("log", "log_id"), ("problem", "fingerprint")):
        key = f"appstore.diagnostic.{name}"
        attributes[key] = names.of(kind, str(attributes[key]))
    return {
        "event_name": event.event_name,
        "timestamp": event.timestamp,
        "observed_timestamp": event.observed_timestamp,
        "severity": [event.severity_number.value if event.severity_number else None, event.severity_text],
        "body": event.body,
        "attributes": attributes,
    }


def _lines(metric: Metric) -> list[dict[str, Any]]:
    """Each point of a metric with what is said of it; the description is the catalogue's."""
    assert metric.description == METRICS[metric.name].description
    lines = []
    for point in metric.data.data_points:
        fields = {"name": metric.name, "unit": metric.unit, **json.loads(point.to_json())}
        unsaid = {"exemplars", "flags"} | {key for key, value in fields.items() if value is None}
        lines.append({key: value for key, value in fields.items() if key not in unsaid})
    return lines


def _compare(name: str, result: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.out.json"
    if os.environ.get("UPDATE_GOLDEN"):
        assert not os.environ.get("CI"), "golden files are not updated where nobody reads the difference"
        path.write_text(_rendered(result))
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))


def _rendered(result: dict[str, Any]) -> str:
    """JSON with one point, event or answer a line."""
    entries = []
    for key, value in result.items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        entries.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


# Signatures


def signature(number: int, weight: float | None = 0.5, kind: str = "HANGS", text: str = "") -> Signature:
    return Signature(f"s{number:03}", kind, text or f"Shop.f{number}()", weight, None, ())


def gauges_of(converted: ConvertedGauges) -> list[tuple[str, dict[str, Any], float]]:
    return [
        (metric.name, dict(point.attributes or {}), point.value)
        for metric in converted.gauges
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    ]


def converted_signatures(found: Sequence[Signature], *, top: int = 10, cap: int = 1000) -> ConvertedGauges:
    return convert_signatures(found, ORIGIN, new=(), top=top, series_cap=cap, observed_at=OBSERVED_AT)


def test_a_build_without_signatures_says_so() -> None:
    """Each of the three types has an explicit 0, so that an alert ends by data."""
    counts = {
        attributes["diagnostic_type"]: value for _, attributes, value in gauges_of(converted_signatures([]))
    }
    assert counts == {"DISK_WRITES": 0.0, "HANGS": 0.0, "LAUNCHES": 0.0}


def test_of_equal_weights_the_id_decides() -> None:
    """Which signatures become series does not depend on Apple's order."""
    found = [signature(number) for number in (3, 1, 2)]
    for order in (found, found[::-1]):
        kept = {
            attributes["signature_id"]
            for name, attributes, _ in gauges_of(converted_signatures(order, top=2))
            if name == "appstore.diagnostic.signature.weight"
        }
        assert kept == {"s001", "s002"}


def test_no_signature_becomes_a_series_with_a_top_of_none() -> None:
    """With a top of 0 there are counts and shares alone, and what is left out is told."""
    converted = converted_signatures([signature(1), signature(2)], top=0)
    names = {"appstore.diagnostic.signatures", "appstore.diagnostic.new_share"}
    assert {name for name, _, _ in gauges_of(converted)} == names
    assert converted.left_out == {"top_signatures": 2}


weights = st.none() | st.sampled_from([0.0, 0.5, 1.0, 85.0, -1.0])
signatures = st.lists(
    st.builds(
        Signature,
        st.sampled_from([f"s{number}" for number in range(12)]),
        st.sampled_from(["HANGS", "LAUNCHES", "DISK_WRITES", "SPINS"]),
        st.sampled_from(["", "Shop.pay() + 12", "x" * 500, "Shop.cart()", "+ 12"]),
        weights,
        st.sampled_from([None, -1, 0, 1]),
        st.sampled_from([(), (("2.0", 0.5),), (("2.0", 0.5), ("1.9", 0.0))]),
    ),
    max_size=12,
    unique_by=lambda item: item.id,
)


@settings(deadline=None, max_examples=150)
@given(signatures, st.integers(0, 5), st.integers(-1, 40), st.sets(st.sampled_from(["s1", "s2"])))
def test_no_signatures_break_a_rule(found: list[Signature], top: int, cap: int, new: set[str]) -> None:
    """What leaves and what is left out is all there is; names, attributes and caps are kept to."""

    def convert(most: int) -> ConvertedGauges:
        return convert_signatures(found, ORIGIN, new=new, top=top, series_cap=most, observed_at=OBSERVED_AT)

    converted, everything = convert(cap), convert(10_000)
    points = gauges_of(converted)
    assert len(points) == converted.series.total() == min(max(0, cap), everything.series.total())
    assert converted.series + converted.capped == everything.series
    assert converted.left_out["series_cap"] == converted.capped.total()
    kinds = Counter(item.type for item in found)
    assert converted.left_out["top_signatures"] == sum(max(0, count - top) for count in kinds.values())
    assert set(converted.left_out) <= set(LEFT_OUT)
    _check_series(points)
    weighed = {attributes["signature_id"] for name, attributes, _ in points if name.endswith(".new")}
    assert len(weighed) <= top * 4
    assert all(0.0 <= value <= 1.0 for name, _, value in points if name.endswith(".new_share"))


def _check_series(points: Sequence[tuple[str, Mapping[str, Any], float]]) -> None:
    """Each series once, under a name of the catalogue's, with attributes that it lists."""
    for name, attributes, value in points:
        assert set(attributes) <= set(METRICS[name].attributes)
        assert all(0 < len(text) <= 200 for text in attributes.values())
        assert math.isfinite(value)
    series = Counter((name, *sorted(attributes.items())) for name, attributes, _ in points)
    assert set(series.values()) <= {1}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", None),
        ("+ 12", None),
        ("Shop.pay()", "Shop.pay()"),
        ("Shop.pay() + 120", "Shop.pay()"),
        ("Shop.pay()+0x1F", "Shop.pay()"),
        ("a + b", "a + b"),
        ("operator+(int)", "operator+(int)"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 119 + "…"),
        ("x" * 118 + " yyy", "x" * 118 + "…"),
    ],
)
def test_signatures_are_readable(text: str, shown: str | None) -> None:
    """The text loses the offset at its end, is at most 120 characters long, and never empty."""
    assert signature_attributes("s1", text).get("signature") == shown
    assert signature_attributes("s1", text)["signature_id"] == "s1"


# Occurrences


def counted(number: int, count: float | None, kind: str = "HANGS") -> TopSignature:
    return TopSignature(f"s{number}", kind, f"f{number}", count, None, "", None, None, ())


def occurrences(
    *found: TopSignature,
    version: str = "2.1",
    platform: str = "iOS",
    top: int = 9,
    known: Mapping[str, tuple[str, str, str]] | None = None,
) -> ConvertedGauges:
    overview = Overview(platform, version, found, (), Counter())
    return convert_occurrences(overview, known or {}, top=top, series_cap=9, observed_at=OBSERVED_AT)


def test_occurrences_stand_beside_the_weights() -> None:
    """Text, version and platform are those of the signature's own answer, where there is one."""
    known = {"s1": ("Foo.pay() + 4", "2.0", "macOS")}
    place = {"diagnostic_type": "HANGS", "version": "2.0", "platform": "macOS"}
    attributes = place | {"signature_id": "s1", "signature": "Foo.pay()"}
    found = gauges_of(occurrences(counted(1, 5.0), counted(2, 4.0), version="", known=known))
    assert found == [("appstore.diagnostic.signature.count", attributes, 5.0)]


def test_occurrences_without_a_version_are_no_points() -> None:
    """A count of a version that nobody names would be a series that never ends."""
    converted = occurrences(counted(1, 5.0), counted(2, None), version="")
    assert (converted.gauges, converted.left_out) == ([], {"no_version": 1, "no_value": 1})


def test_an_unknown_platform_is_left_away() -> None:
    """No attribute is ever empty."""
    ((_, attributes, value),) = gauges_of(occurrences(counted(1, 0.0), platform=""))
    assert attributes == {
        "diagnostic_type": "HANGS",
        "version": "2.1",
        "signature_id": "s1",
        "signature": "f1",
    }
    assert value == 0.0


def test_each_type_has_its_own_top() -> None:
    """The most frequent of each type become series."""
    found = [counted(number, float(number), kind) for number in range(4) for kind in ("HANGS", "LAUNCHES")]
    converted = occurrences(*found, top=1)
    assert [(point["diagnostic_type"], value) for _, point, value in gauges_of(converted)] == [
        ("HANGS", 3.0),
        ("LAUNCHES", 3.0),
    ]
    assert converted.left_out == {"top_signatures": 6}


# What is new


def test_what_no_earlier_version_had_is_new() -> None:
    """Also where the earlier versions had nothing at all; the caller knows whether they were looked at."""
    found = [signature(1), signature(2)]
    (first, second) = problems_of(found).values()
    every = frozenset({found[0].id, found[1].id})
    assert new_signatures(found, "2.1", {}) == every
    assert new_signatures(found, "2.1", {first: Versions("2.1", "2.1")}) == every
    assert new_signatures(found, "2.1", {second: Versions("2.0", "2.2")}) == {found[0].id}


def test_a_signature_without_a_name_is_not_called_new() -> None:
    """An offset into a binary is another one in each build."""
    nameless = [signature(1, text="Shop + 105316"), Signature("s2", "HANGS", "", 0.5, None, ())]
    assert new_signatures(nameless, "2.1", {}) == frozenset()


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (None, True),
        (Versions("2.1", "2.1"), True),
        (Versions("2.0", "2.0"), False),
        (Versions("2.0", "2.1"), False),
        (Versions("1.0", "1.0"), False),
        (Versions("2.2", "2.2"), True),
    ],
)
def test_a_problem_is_new_while_no_earlier_version_had_it(known: Versions | None, new: bool) -> None:
    """Also when it is seen again in the same version; not when it was gone for a while and returns."""
    item = signature(1, text="Shop.pay() + 120")
    problems = {recognition.problem("HANGS", "Shop.other()"): Versions("1.0", "2.0")}
    if known:
        problems[recognition.problem("HANGS", "Shop.pay()")] = known
    assert new_signatures([item], "2.1", problems) == (frozenset({item.id}) if new else frozenset())
    other = signature(1, kind="LAUNCHES", text="Shop.pay()")
    assert new_signatures([other], "2.1", problems) == frozenset({other.id})


@pytest.mark.parametrize(
    ("found", "share"),
    [
        ([0.5, 0.25, 0.25], 0.5),
        ([50.0, 25.0, 25.0], 0.5),
        ([1.0], 1.0),
        ([0.0, 0.3], 0.0),
        ([1e308, 1e308], 0.5),
        ([5e-324, 5e-324], 0.5),
        ([1.0, 1e300], 1e-300),
        ([], 0.0),
        ([0.0, 0.0], None),
        ([None], None),
        ([0.5, None], None),
        ([None, 0.5], None),
        ([0.5, -0.5], None),
        ([-0.5, 1.0], None),
    ],
)
def test_the_share_of_the_new_is_by_weight(found: list[float | None], share: float | None) -> None:
    """The first one is new: its weight over all, on any scale; None where one is not known, or all are 0."""
    of_type = [signature(number, weight) for number, weight in enumerate(found)]
    assert new_share(of_type, {"s000", "of another type"}) == (share and pytest.approx(share))
    assert new_share(of_type, {"of another type"}) == 0.0  # nothing is new, whatever it weighs


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_share_of_the_new_is_of_all_signatures(scale: float) -> None:
    """Also of those that become no series of their own, and of each type for itself."""
    found = [signature(number, scale / 8) for number in range(8)]
    found += [signature(8, scale, "LAUNCHES"), signature(9, None, "DISK_WRITES")]
    converted = convert_signatures(
        found, ORIGIN, new={"s006", "s007", "s008"}, top=1, series_cap=100, observed_at=OBSERVED_AT
    )
    of_type = {"version": "2.1", "platform": "iOS"}
    assert [point for point in gauges_of(converted) if point[0].endswith("share")] == [
        ("appstore.diagnostic.new_share", {"diagnostic_type": "DISK_WRITES", **of_type}, 0.0),
        ("appstore.diagnostic.new_share", {"diagnostic_type": "HANGS", **of_type}, 0.25),
        ("appstore.diagnostic.new_share", {"diagnostic_type": "LAUNCHES", **of_type}, 1.0),
    ]


def test_versions_are_compared_by_their_numbers() -> None:
    """1.9 is before 1.10, whichever is seen first; a beta is before its release."""
    assert seen_in(None, "1.9") == Versions("1.9", "1.9")
    assert seen_in(Versions("1.10", "1.10"), "1.9") == Versions("1.9", "1.10")
    assert seen_in(Versions("1.9", "1.10"), "1.9.5") == Versions("1.9", "1.10")
    assert seen_in(Versions("1.9", "1.9"), "1.10") == Versions("1.9", "1.10")
    assert knows_earlier({"p": Versions("1.9", "9.0")}, "1.10")
    assert not knows_earlier({"p": Versions("1.10", "1.10")}, "1.10")
    assert knows_earlier({"p": Versions("2.0-beta", "2.0-beta")}, "2.0")


# Logs


def log_of(kind: str = "HANGS", **fields: Any) -> Log:
    names = (
        *("event", "detail", "writes_caused", "os_version", "app_version", "build_version"),
        *("bundle_id", "device", "architecture"),
    )
    return Log(**{name: fields.get(name, "") for name in names}, stacks=fields.get("stacks", ()))


def context_of(
    kind: str = "HANGS",
    text: str = "Shop.pay()",
    file: str = "",
    line: int | None = None,
    problems: Mapping[str, Versions] | None = None,
    comparable: bool = True,
) -> Context:
    signature = Signature("s1", kind, text, 0.5, None, ())
    return Context(signature, ORIGIN, file, line, problems or {}, comparable)


def converted_logs(*logs: Log, insights: tuple[LogInsight, ...] = (), **context: Any) -> ConvertedLogs:
    products = [SignatureLogs("s1", insights, logs)]
    return convert_logs(products, context_of(**context), seen=(), observed_at=OBSERVED_AT)


def event_of(log: Log, **context: Any) -> dict[str, Any]:
    """The attributes of a log's event."""
    (event,) = converted_logs(log, **context).events
    return dict(event.attributes or {})


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("iPhone13_3", "iPhone13,3"),
        ("iPad13_11", "iPad13,11"),
        ("MacBookPro18_3", "MacBookPro18,3"),
        ("iPhone13,3", "iPhone13,3"),
        ("arm64_v8", "arm64_v8"),
        ("iPhone", "iPhone"),
        ("iPhone13_3_1", "iPhone13_3_1"),
        ("", ""),
    ],
)
def test_devices_are_spelled_as_metrics_spell_them(text: str, model: str) -> None:
    """A model with an underscore is the one with a comma; anything else stays as it is."""
    assert device_model(text) == model


@pytest.mark.parametrize(
    ("text", "version", "build"),
    [
        ("iPhone OS 14.6 (18F72)", "14.6", "18F72"),
        ("iPhone OS 14.6 (Build 18F72)", "14.6", "18F72"),
        ("18F72", "", "18F72"),
        ("macOS 14.1.1 (23B81)", "14.1.1", "23B81"),
        ("iOS 17.1(21B74)", "17.1", "21B74"),
        ("iOS 18.2", "18.2", ""),
        ("iOS 18", "18", ""),
        ("18.2 ()", "18.2", ""),
        ("visionOS 2.0 (22N5252n)", "2.0", "22N5252n"),
        ("beta", "beta", ""),
        ("", "", ""),
    ],
)
def test_an_operating_system_has_version_and_build(text: str, version: str, build: str) -> None:
    """`iPhone OS 14.6 (18F72)` is told apart; without any number the text is the version."""
    assert os_of(text) == (version, build)


@pytest.mark.parametrize(
    ("kind", "fields", "value"),
    [
        ("HANGS", {"detail": "Hang of 2.35 sec"}, 2.35),
        ("HANGS", {"detail": "Hang of 0 sec"}, 0.0),
        ("LAUNCHES", {"detail": "1,500 ms"}, 1.5),
        ("DISK_WRITES", {"writes_caused": "1073.76 MB"}, 1_073_760_000.0),
        ("DISK_WRITES", {"writes_caused": "2.01 MB"}, 2_010_000.0),
        ("DISK_WRITES", {"writes_caused": "0 MB", "detail": "5 MB"}, 0.0),
        ("DISK_WRITES", {"writes_caused": "1 MB", "detail": "5 MB"}, 1_000_000.0),
        ("DISK_WRITES", {"writes_caused": "lots", "detail": "Total of 1.2 GB of disk writes"}, 1.2e9),
        ("DISK_WRITES", {"writes_caused": "9223372 TB"}, 9.223372e18),
        ("DISK_WRITES", {"writes_caused": "9223373 TB"}, None),
        ("DISK_WRITES", {"writes_caused": "1 sec"}, None),
        ("HANGS", {"writes_caused": "1 MB"}, None),
        ("HANGS", {"detail": "a while"}, None),
    ],
)
def test_what_a_log_measured(kind: str, fields: dict[str, str], value: float | None) -> None:
    """Whole bytes or seconds, in an observation and on the event; the event goes out without them, too."""
    converted = converted_logs(log_of(**fields, app_version="2.1"), kind=kind)
    assert [item.value for item in converted.observations] == ([] if value is None else [value])
    assert converted.left_out == ({"no_quantity": 1} if value is None else {})
    attributes = dict(converted.events[0].attributes or {})
    name = "bytes_written" if kind == "DISK_WRITES" else "duration"
    assert attributes.get(f"appstore.diagnostic.{name}") == value
    assert isinstance(attributes.get("appstore.diagnostic.bytes_written", 0), int)


def test_a_type_that_nobody_knows_has_no_quantity() -> None:
    """Its logs are counted as such, and their events go out."""
    converted = converted_logs(log_of(detail="Spin of 3 sec"), kind="SPINS")
    assert (converted.observations, converted.left_out) == ([], {"unknown_type": 1})
    assert converted.events[0].body == "SPINS in Shop.pay() on an unknown device, version 2.1: Spin of 3 sec"


def test_an_empty_operating_system_is_no_attribute() -> None:
    """An observation has device, platform and version, and the operating system's where it is told."""
    converted = converted_logs(
        log_of(detail="1 s"), log_of(detail="2 s", os_version="iOS 17.1", device="Mac15_3")
    )
    assert [item.attributes for item in converted.observations] == [
        (("device", "unknown"), ("platform", "iOS"), ("version", "2.1")),
        (("device", "Mac15,3"), ("platform", "iOS"), ("version", "2.1"), ("os_version", "17.1")),
    ]


def frames(*symbols: str, **fields: Any) -> tuple[tuple[Any, ...], ...]:
    """One stack, in which the last frame is blamed."""
    nodes: list[dict[str, Any]] = [{"symbolName": symbols[-1], "isBlameFrame": True, **fields}]
    for symbol in reversed(symbols[:-1]):
        nodes = [{"symbolName": symbol, "subFrames": nodes}]
    tree = {"callStacks": [{"callStackRootFrames": nodes}]}
    document = {"productData": [{"diagnosticLogs": [{"callStackTree": tree}]}]}
    return parse_logs(document).products[0].logs[0].stacks


@pytest.mark.parametrize(
    ("fields", "known", "place"),
    [
        ({"fileName": "A.swift", "lineNumber": "3"}, ("B.swift", 7), ("A.swift", 3)),
        ({"fileName": "A.swift"}, ("B.swift", 7), ("A.swift", None)),
        ({"lineNumber": "3"}, ("B.swift", 7), ("B.swift", 7)),
        ({}, ("B.swift", None), ("B.swift", None)),
        ({}, ("", None), (None, None)),
    ],
)
def test_where_in_the_source(
    fields: dict[str, Any], known: tuple[str, int | None], place: tuple[str | None, int | None]
) -> None:
    """File and line are the blamed frame's; where it has no file, the overview's: never one of each."""
    attributes = event_of(log_of(stacks=frames("main", "f", **fields)), file=known[0], line=known[1])
    assert (attributes.get("code.file.path"), attributes.get("code.line.number")) == place
    assert attributes["code.function.name"] == "f"


def test_problems_without_any_words_are_told_apart() -> None:
    """Where neither stack nor text says anything, the signature's id is what makes a problem."""
    one, other = (
        convert_logs(
            [SignatureLogs("", (), (log_of(detail="1 s"),))],
            Context(Signature(name, "HANGS", "", None, None, ()), ORIGIN, "", None, {}, comparable=False),
            seen=(),
            observed_at=OBSERVED_AT,
        )
        for name in ("s1", "s2")
    )
    assert set(one.problems).isdisjoint(other.problems)
    assert set(one.problems) == set(problems_of([Signature("s1", "HANGS", "", None, None, ())]).values())


def test_what_an_event_says_of_versions_is_what_is_remembered() -> None:
    """A stack whose signature's text was seen before is as old as the text, now and later."""
    text = recognition.problem("HANGS", "Shop.pay()")
    log = log_of(stacks=frames("main", "Shop.Cart.sync()"))
    converted = converted_logs(log, problems={text: Versions("1.0", "3.0")})
    attributes = dict(converted.events[0].attributes or {})
    fingerprint = str(attributes["appstore.diagnostic.fingerprint"])
    assert fingerprint != text
    assert converted.problems == {fingerprint: Versions("1.0", "3.0")}
    assert (
        attributes["appstore.diagnostic.first_seen_version"],
        attributes["appstore.diagnostic.last_seen_version"],
        attributes["appstore.diagnostic.new"],
    ) == ("1.0", "3.0", False)


def test_logs_of_one_answer_know_each_other() -> None:
    """The same problem in two versions in one answer has one history."""
    logs = [log_of(detail=f"{n} s", app_version=version) for n, version in enumerate(["2.0", "1.9", "2.1"])]
    (versions,) = converted_logs(*logs).problems.values()
    assert versions == Versions("1.9", "2.1")


@pytest.mark.parametrize(
    ("context", "stack", "new"),
    [
        ({"comparable": True}, "", True),
        ({"comparable": True, "text": "Shop + 105316"}, "f", True),
        ({"comparable": True, "text": "Shop + 105316"}, "", None),
        ({"comparable": False}, "", None),
    ],
)
def test_a_new_problem_is_a_warning(context: dict[str, Any], stack: str, new: bool | None) -> None:
    """Only where earlier versions are known, and where names tell the problem; else nothing is said of it."""
    log = log_of(detail="1 s", stacks=frames(stack) if stack else ())
    (event,) = converted_logs(log, **context).events
    assert event.severity_text == ("WARN" if new else "INFO")
    assert event.severity_number is not None
    assert event.severity_number.name == event.severity_text
    assert (event.attributes or {}).get("appstore.diagnostic.new") is new


def test_a_problem_of_an_earlier_version_is_not_new() -> None:
    """What an earlier version had is old, by the stack or by the signature's text."""
    log = log_of(stacks=frames("f"))
    known = recognise("HANGS", log.stacks, "").fingerprint
    for problem in (known, recognition.problem("HANGS", "Shop.pay()")):
        (event,) = converted_logs(log, problems={problem: Versions("2.0", "2.0")}).events
        assert (event.attributes or {})["appstore.diagnostic.new"] is False
        assert event.severity_text == "INFO"
    (event,) = converted_logs(log, problems={known: Versions("2.1", "2.1")}).events
    assert (event.attributes or {})["appstore.diagnostic.new"] is True


def test_texts_are_bounded() -> None:
    """What Apple says at length is cut, and says so."""
    insights = tuple(LogInsight("", f"{n} " + "x" * 480, "") for n in range(9))
    (event,) = converted_logs(
        log_of(detail="d" * 200, stacks=frames("f" * 500)), insights=insights, text="t" * 500
    ).events
    attributes = event.attributes or {}
    assert attributes["signature"] == "t" * 119 + "…"
    remark = str(attributes["appstore.diagnostic.insight"])
    assert (len(remark), remark[-1]) == (1000, "…")
    assert len(str(event.body)) < 500


# What holds for all logs

frame_drawn = st.fixed_dictionaries(
    {"symbolName": st.sampled_from(["main", "Shop.pay() + 12", "Shop.cart()", "", None, "x" * 600])},
    optional={
        "isBlameFrame": st.booleans(),
        "fileName": st.sampled_from(["A.swift", "", 5.0]),
        "lineNumber": st.sampled_from(["3", "0", 1e12, None]),
        "sampleCount": st.sampled_from([1.0, math.inf, -3.0, 1e308]),
        "insightsCategory": st.sampled_from(["I/O", ""]),
    },
)
trees_drawn = st.none() | st.lists(
    st.builds(
        lambda outer, inner: {"callStacks": [{"callStackRootFrames": [outer | {"subFrames": inner}]}]},
        frame_drawn,
        st.lists(frame_drawn, max_size=2),
    ),
    max_size=2,
)
log_drawn = st.fixed_dictionaries(
    {},
    optional={
        "diagnosticMetaData": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "eventDetail": st.sampled_from(
                    ["1 sec", "Total of 2.01 MB", "99999999999 TB", "", "\ud800", 5.0, "x" * 900, "9e999 s"]
                ),
                "writesCaused": st.sampled_from(["1073.76 MB", "much", "", None]),
                "osVersion": st.sampled_from(["iPhone OS 14.6 (18F72)", "beta", "", "9" * 900]),
                "appVersion": st.sampled_from(["2.1", "2.0", "", "\x00", "x" * 900]),
                "deviceType": st.sampled_from(["iPhone13_3", "", "a\x1bb"]),
            },
        ),
        "callStackTree": trees_drawn,
    },
)
documents = st.fixed_dictionaries(
    {
        "productData": st.lists(
            st.fixed_dictionaries(
                {"diagnosticLogs": st.lists(log_drawn | st.none(), max_size=5)},
                optional={
                    "diagnosticInsights": st.lists(
                        st.fixed_dictionaries({"insightsString": st.sampled_from(["a", "", 5.0, "x" * 900])}),
                        max_size=2,
                    )
                },
            ),
            max_size=3,
        )
    }
)
contexts = st.builds(
    Context,
    st.builds(
        Signature,
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(["HANGS", "LAUNCHES", "DISK_WRITES", "SPINS"]),
        st.sampled_from(["", "Shop.pay() + 12", "x" * 500]),
        weights,
        st.none(),
        st.just(()),
    ),
    st.builds(Origin, st.sampled_from(["2.1", "2.0"]), st.sampled_from(["210", ""]), st.just("iOS")),
    st.sampled_from(["", "A.swift"]),
    st.none() | st.integers(1, 9),
    st.dictionaries(
        st.sampled_from([recognition.problem("HANGS", "Shop.pay()"), "other"]),
        st.sampled_from([Versions("1.0", "1.0"), Versions("2.1", "2.1"), Versions("2.0", "3.0")]),
    ),
)


@settings(deadline=None, max_examples=300)
@given(documents, contexts, st.sets(st.integers(0, 9)))
def test_each_log_is_sent_once(document: Any, context: Context, before: set[int]) -> None:
    """Each log is a duplicate or has an identity; what was not seen before is an event, in the logs' order;
    converted again, nothing is sent."""
    try:
        products = parse_logs(document).products
    except BadAnswer:
        return
    logs = [log for product in products for log in product.logs]
    ids = [recognition.identity(context.signature.type, log, context.signature.id) for log in logs]
    first_ids = list(dict.fromkeys(ids))
    seen = {identity for number, identity in enumerate(first_ids) if number in before}
    converted = convert_logs(products, context, seen=seen, observed_at=OBSERVED_AT)
    assert converted.identities == first_ids
    assert converted.left_out["duplicate"] == len(logs) - len(first_ids)
    sent = [(event.attributes or {})["appstore.diagnostic.log_id"] for event in converted.events]
    assert sent == [identity.hex() for identity in first_ids if identity not in seen]
    unmeasured = converted.left_out["no_quantity"] + converted.left_out["unknown_type"]
    assert len(converted.observations) + unmeasured == len(converted.events)
    assert set(converted.left_out) <= set(LEFT_OUT)
    for event in converted.events:
        _check_event(event)
    again = convert_logs(products, context, seen=converted.identities, observed_at=OBSERVED_AT)
    assert (again.events, again.observations) == ([], [])
    assert again.problems == converted.problems  # they are there still, and are not to be forgotten
    assert again.identities == converted.identities
    _check_distributions(converted.observations)


def _check_event(event: LogRecord) -> None:
    attributes = event.attributes or {}
    assert set(attributes) <= set(DIAGNOSTIC_EVENT.attributes)
    assert {"device", "platform", "version", "signature_id", "diagnostic_type"} <= set(attributes)
    assert re.fullmatch(r"[0-9a-f]{16}", str(attributes["appstore.diagnostic.fingerprint"]))
    assert re.fullmatch(r"[0-9a-f]{32}", str(attributes["appstore.diagnostic.log_id"]))
    for name, value in attributes.items():
        if isinstance(value, str):
            longest = {"code.stacktrace": 60 * 201, "appstore.diagnostic.insight": 1000}.get(name, 500)
            assert 0 < len(value) <= longest
            assert value.encode("utf-8").decode("utf-8").strip("\n") == value
        else:
            assert isinstance(value, float | int | bool)
            assert -(2**63) <= value < 2**63
    assert isinstance(event.body, str)
    assert event.body.isprintable()
    assert (event.event_name, event.timestamp) == ("appstore.diagnostic", OBSERVED_AT)


def _check_distributions(observations: Sequence[Observation]) -> None:
    distributions = diagnostic_distributions(observations)
    assert sum(sum(item.counts) for item in distributions) == len(observations)
    series = {(item.name, tuple(item.attributes.items())): item for item in distributions}
    assert len(series) == len(distributions) == len({item.identity for item in distributions})
    for (name, attributes), item in series.items():
        values = [
            found.value for found in observations if (found.metric, found.attributes) == (name, attributes)
        ]
        assert item.total == math.fsum(values)
        assert (item.minimum, item.maximum) == (min(values), max(values))
        assert len(item.counts) == len(item.bounds) + 1 <= 30
        assert all(lower < upper for lower, upper in pairwise(item.bounds))
        assert set(item.attributes) <= set(METRICS[name].attributes)
        assert (item.unit, item.description) == (METRICS[name].unit, METRICS[name].description)


def test_no_observations_no_distributions() -> None:
    """A histogram is never empty."""
    assert diagnostic_distributions([]) == []
