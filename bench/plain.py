"""The path one would write first: json.loads → SDK data classes → encode_metrics; what we measure against."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_UNITS = {
    "milliseconds": ("s", 0.001),
    "seconds/hour": ("s/h", 1.0),
    "megabytes": ("By", 1e6),
    "megabytes/day": ("By/d", 1e6),
    "percentage": ("%", 1.0),
    "scrollHitchRate": ("%", 1.0),
}
_BANDS = {"good": 1.0, "fair": 2.0, "poor": 3.0}


def plain_body(body: bytes, resource: Resource, now: int) -> tuple[bytes, int]:
    """An `xcodeMetrics` body as an ExportMetricsServiceRequest, and the number of its points."""
    metrics, count = [], 0
    for product in json.loads(body)["productData"]:
        for category in product["metricCategories"]:
            for metric in category["metrics"]:
                name = f"appstore.{category['identifier'].lower()}.{metric['identifier']}"
                unit, factor = _UNITS[metric["unit"]["identifier"]]
                values, margins, bands = _points(product["platform"], metric, factor, now)
                count += len(values) + len(margins) + len(bands)
                metrics += [
                    Metric(name, "", unit, Gauge(values)),
                    Metric(f"{name}.error_margin", "", unit, Gauge(margins)),
                    Metric(f"{name}.goal_band", "", "{band}", Gauge(bands)),
                ]
    scope = ScopeMetrics(InstrumentationScope("perfpower-exporter"), metrics, "")
    return encode_metrics(MetricsData([ResourceMetrics(resource, [scope], "")])).SerializeToString(), count


def _points(
    platform: str, metric: dict[str, Any], factor: float, now: int
) -> tuple[list[NumberDataPoint], ...]:
    values, margins, bands = [], [], []
    for dataset in metric["datasets"]:
        criteria = dataset["filterCriteria"]
        for point in dataset["points"]:
            attributes = {
                "device": criteria["device"],
                "platform": platform,
                "version": point["version"],
                "device_name": criteria["deviceMarketingName"],
                "percentile": "p50" if criteria["percentile"] == "percentile.fifty" else "p90",
            }
            values.append(NumberDataPoint(attributes, 0, now, point["value"] * factor))
            margins.append(NumberDataPoint(attributes, 0, now, point["errorMargin"] * factor))
            bands.append(NumberDataPoint(attributes, 0, now, _BANDS[point["goal"]]))
    return values, margins, bands
