from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.backends.datadog import DatadogIntake
from tests.container.pair import INTAKE_PORT, Pair, said, stopped
from tests.container.tools import USER, inspected, logs, wait_until

KEY = "made-up-datadog-key"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}  # the Collector


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A file with an API key that the containers' user alone can read."""
    path = tmp_path / "dd_api_key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o400)
    shutil.chown(path, USER, USER)
    return path


@contextmanager
def datadog(pair: Pair, key: str) -> Iterator[DatadogIntake]:
    """Datadog's intake, where the Collector of the pair looks for it."""
    with ExitStack() as opened:
        with pair.inside():
            intake = opened.enter_context(DatadogIntake(key=key, port=INTAKE_PORT))
        yield intake


@pytest.mark.usefixtures("collector_image")
def test_what_the_backend_refuses_waits_in_the_exporters_state(pair: Pair, key: Path) -> None:
    """A wrong key is named and costs nothing: with the right one all is delivered, without another poll."""
    collector = pair.collector(key)
    with datadog(pair, "another key"):
        first = pair.exporter("first", **ENDPOINT)
        wait_until(lambda: said(first, "delivery"), lambda: logs(first) + logs(collector))
        assert stopped(first)[0] == 0
    refused = said(first, "delivery")[-1]
    assert (refused["outcome"], refused["accepted"], refused["given_up"]) == ("failed", 0, 0)
    assert "HTTP 403" in refused["endpoint_says"]
    assert "the API key is missing or wrong" in refused["endpoint_says"]
    assert said(first, "stopped")[0]["owed"] == refused["owed"] > 0

    with datadog(pair, KEY) as intake:
        second = pair.exporter("second", **ENDPOINT)
        wait_until(lambda: said(second, "delivery"), lambda: logs(second) + logs(collector))
        points = [point for point in intake.points() if not point.name.startswith("appstore.exporter.")]
        assert stopped(second)[0] == 0
        assert intake.refusals == []
    delivered = said(second, "delivery")[0]
    assert (delivered["outcome"], delivered["owed"], said(second, "poll")) == ("ok", 0, [])
    assert (len(points), len(intake.records())) == (delivered["accepted"], delivered["events"])
    assert {point.kind for point in points} == {"gauge", "distribution"}
    assert not any(KEY in logs(name) + json.dumps(inspected(name)) for name in (first, second, collector))
