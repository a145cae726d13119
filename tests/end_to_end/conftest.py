from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.collector.binary import MISSING, find
from tests.container.tools import missing
from tests.end_to_end.course import Arrived, Course, at_datadog, at_prometheus, at_splunk, run

FULL = {
    "collect__builds": 1,
    "limits__series_per_app": 20_000,  # no series is left out over it
    "limits__key_share": 0.065,  # enough for the first poll, so that the second puts something off
}
ONE_APP = {"accounts__0__apps": "[com.example.larkspur]"}


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The Collector's program."""
    return find(os.environ) or missing(MISSING)


@pytest.fixture(scope="session")
def over_datadog(otelcol: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course with Datadog as the backend."""
    return run(otelcol, tmp_path_factory.mktemp("datadog"), "datadog", FULL)


@pytest.fixture(scope="session")
def over_splunk(otelcol: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course with Splunk as the backend."""
    return run(otelcol, tmp_path_factory.mktemp("splunk"), "signalfx", FULL)


@pytest.fixture(scope="session")
def over_prometheus(otelcol: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course with a page for Prometheus."""
    return run(otelcol, tmp_path_factory.mktemp("prometheus"), "prometheus", FULL)


@pytest.fixture(scope="session")
def over_grpc(otelcol: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course with Datadog as the backend, over gRPC to the Collector."""
    return run(otelcol, tmp_path_factory.mktemp("grpc"), "datadog", ONE_APP, "grpc")


@pytest.fixture(scope="session")
def arrived(over_datadog: Course, over_splunk: Course, over_prometheus: Course) -> dict[str, Arrived]:
    """What there is to look at in each backend: all that a dashboard or a monitor can name."""
    return {
        "datadog": at_datadog(over_datadog),
        "signalfx": at_splunk(over_splunk),
        "prometheus": at_prometheus(over_prometheus),
    }
