"""Whole answers in, whole points out: `golden/*.in.json` → `golden/*.out.json`.

To accept a change of the output on purpose: `UPDATE_GOLDEN=1 pytest tests/convert`, then read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry._logs import LogRecord
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.convert.distributions import owed
from exporter.convert.insights import Finding, convert_insights
from exporter.convert.metrics import Converted, Selection, convert
from exporter.otlp.encode import encode

GOLDEN = Path(__file__).parent / "golden"
OBSERVED_AT = 1_700_000_000_000_000_000
RESOURCE = Resource({"service.name": "com.example.notes", "appstore.app.id": "1234567890"})
SCOPE = InstrumentationScope("perfpower-exporter", "0")


class Case(NamedTuple):
    """An input, by its name, and how it is converted."""

    answer: str
    selection: Selection = Selection()
    series_cap: int = 10_000
    build: str = ""


CASES = {
    "launch": Case("launch"),
    "launch_aggregate": Case("launch", Selection(detail="aggregate")),
    "drift": Case("drift"),
    "unknown_words": Case("unknown_words"),
    "same_identifier": Case("same_identifier"),
    "eight_versions": Case("eight_versions"),
    "eight_versions_capped": Case("eight_versions", Selection(detail="full"), series_cap=20),
    "build": Case("build", Selection(detail="full"), build="4711"),
    "not_enough_usage": Case("not_enough_usage"),
    "hostile": Case("hostile"),
    "comparison": Case("comparison"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_becomes_these_points(name: str) -> None:
    """Every point of an answer is as the golden file spells it out, and so is what did not become one."""
    converted = _converted(name)
    distributions, _ = owed(converted.distributions, {}, OBSERVED_AT)
    result = {
        "gauges": [line for metric in converted.gauges for line in _lines(metric)],
        "histograms": [line for metric in distributions for line in _lines(metric)],
        "offered": converted.offered,
        "left_out": dict(sorted(converted.left_out.items())),
        "series": dict(sorted(converted.series.items())),
        "capped": dict(sorted(converted.capped.items())),
        "unknown_units": sorted(converted.unknown_units),
    }
    _compare(GOLDEN / f"{name}.out.json", result)


@pytest.mark.parametrize("name", ["launch", "build"])
def test_an_answer_becomes_this_request(name: str) -> None:
    """The requests on the wire, decoded by the official classes, are as the golden file spells them out."""
    converted = _converted(name)
    distributions, _ = owed(converted.distributions, {}, OBSERVED_AT)
    result = {
        "gauges": [_decoded(body.data) for body in encode(RESOURCE, SCOPE, converted.gauges)],
        "histograms": [_decoded(body.data) for body in encode(RESOURCE, SCOPE, distributions)],
    }
    _compare(GOLDEN / f"{name}.request.json", result)


def test_insights_become_these_points_and_events() -> None:
    """Insights that are new, that come twice and that Apple withdrew: points, events, what is remembered."""
    document = json.loads((GOLDEN / "insights.in.json").read_text(), parse_int=float)
    known = [Finding.from_json(finding) for finding in document["known"]]
    payload = parse_metrics(document["answer"])
    converted = convert_insights(payload, known, observed_at=OBSERVED_AT, series_cap=100)
    result = {
        "gauges": [line for metric in converted.gauges for line in _lines(metric)],
        "events": [_plain(event) for event in converted.events],
        "findings": [finding._asdict() for finding in converted.findings],
        "series": dict(sorted(converted.series.items())),
        "left_out": dict(sorted(converted.left_out.items())),
    }
    _compare(GOLDEN / "insights.out.json", result)


def test_no_golden_file_is_forgotten() -> None:
    """Each file in the folder belongs to a case."""
    wanted = {f"{case.answer}.in.json" for case in CASES.values()} | {f"{name}.out.json" for name in CASES}
    wanted |= {"launch.request.json", "build.request.json", "insights.in.json", "insights.out.json"}
    assert {path.name for path in GOLDEN.iterdir()} == wanted


def _plain(event: LogRecord) -> dict[str, Any]:
    return {
        "event_name": event.event_name,
        "timestamp": event.timestamp,
        "observed_timestamp": event.observed_timestamp,
        "severity_number": event.severity_number.value if event.severity_number else None,
        "severity_text": event.severity_text,
        "body": event.body,
        "attributes": event.attributes,
    }


def _converted(name: str) -> Converted:
    case = CASES[name]
    document = json.loads((GOLDEN / f"{case.answer}.in.json").read_text(), parse_int=float)
    return convert(
        parse_metrics(document),
        case.selection,
        observed_at=OBSERVED_AT,
        series_cap=case.series_cap,
        build=case.build,
    )


def _lines(metric: Metric) -> list[dict[str, Any]]:
    """Each point of a metric with all that is said of it; what is not set on it is left away."""
    said = {"name": metric.name, "unit": metric.unit, "description": metric.description}
    lines = []
    for point in metric.data.data_points:
        fields = json.loads(point.to_json())
        for unused in ("exemplars", "flags"):
            fields.pop(unused, None)
        lines.append(said | {key: value for key, value in fields.items() if value is not None})
    return lines


def _decoded(data: bytes) -> Any:
    return MessageToDict(ExportMetricsServiceRequest.FromString(data))


def _compare(path: Path, result: dict[str, Any]) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        assert not os.environ.get("CI"), "golden files are not updated where nobody reads the difference"
        path.write_text(_rendered(result))
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))


def _rendered(result: dict[str, Any]) -> str:
    """JSON with one point a line."""
    entries = []
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            is_request = "resourceMetrics" in value[0]
            lines = [json.dumps(item, indent=2 if is_request else None, ensure_ascii=False) for item in value]
            text = "[\n" + ",\n".join(lines) + "\n]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        entries.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"
