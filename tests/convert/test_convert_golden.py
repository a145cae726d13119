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
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.convert.distributions import owed
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


def test_no_golden_file_is_forgotten() -> None:
    """Each file in the folder belongs to a case."""
    wanted = {f"{case.answer}.in.json" for case in CASES.values()} | {f"{name}.out.json" for name in CASES}
    assert {path.name for path in GOLDEN.iterdir()} == wanted | {"launch.request.json", "build.request.json"}


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
