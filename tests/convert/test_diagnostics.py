"""Signatures and logs → gauges, histograms and events.

Whole answers in, whole points and events out: `golden_diagnostics/*.in.json` → `*.out.json`. To accept a change
of the output on purpose: `UPDATE_GOLDEN=1 pytest tests/convert`, then read the difference.
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
from opentelemetry.sdk.metrics.export import Metric

from exporter.appstore.payloads.diagnostics import (
    Log,
    LogInsight,
    Signature,
    SignatureLogs,
    parse_logs,
    parse_signatures,
)
from exporter.appstore.payloads.overview import Overview, TopSignature, parse_overview
from exporter.convert import stacks
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
    new_signatures,
    os_of,
    problems_of,
    seen_in,
    signature_attributes,
)
from exporter.convert.distributions import chained
from exporter.errors import BadAnswer

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
    new = new_signatures(parsed.signatures, origin.version, _problems(case))
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
            signature, origin, step.get("file", ""), None if line is None else int(line), self.problems
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
        stacks.problem(item["type"], item["name"]): Versions(item["first"], item["last"])
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
