from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from exporter.convert.distributions import bucket_bounds, distribution, owed
from exporter.intake import SCOPE
from exporter.otlp.encode import Body, encode
from exporter.otlp.local_sinks import ConsoleSink, FileSink
from exporter.otlp.sink import Outcome, Reply
from tests.service.service_world import NOW, SECOND, ended, gauges

GAUGES = gauges({"appstore.launch.time": 3, "appstore.hang.rate": 1}, app="Ünïcode “app”")[0]


def histogram() -> Body:
    from opentelemetry.sdk.resources import Resource

    item = distribution(
        "appstore.launch.time.by_device",
        "s",
        "",
        {"device": "all_iphones"},
        [0.5, 1.5],
        bucket_bounds([1.0], "s"),
    )
    metrics, _ = owed([item], {}, round(NOW * SECOND))
    return encode(Resource({"service.name": "com.example.app"}), SCOPE, metrics)[0]


def requests_in(path: Path) -> list[ExportMetricsServiceRequest]:
    return [
        json_format.Parse(line, ExportMetricsServiceRequest())
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def test_each_line_is_the_request_that_was_sent(tmp_path: Path) -> None:
    """A line parsed back is the same request; appended, with the integers as texts, as OTLP/JSON wants it."""
    path = tmp_path / "otlp.jsonl"
    bodies = [GAUGES, histogram()]
    for body in bodies:
        assert FileSink(path).send(body) == Reply(Outcome.ACCEPTED)
    assert [request.SerializeToString() for request in requests_in(path)] == [body.data for body in bodies]
    metric = json.loads(path.read_text().splitlines()[1])["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][
        0
    ]
    point = metric["histogram"]["dataPoints"][0]
    assert point["timeUnixNano"] == str(round(NOW * SECOND))
    assert point["count"] == "2"
    assert metric["histogram"]["aggregationTemporality"] == 1


def test_a_file_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """logrotate may take the file at any time."""
    path, sink = tmp_path / "otlp.jsonl", FileSink(tmp_path / "otlp.jsonl")
    sink.send(GAUGES)
    path.rename(tmp_path / "old")
    sink.send(GAUGES)
    sink.close()
    assert len(requests_in(path)) == len(requests_in(tmp_path / "old")) == 1


def test_a_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Events hold call stacks; the rights of a file that is there already are its owner's choice."""
    made, there = tmp_path / "made", tmp_path / "there"
    there.touch()
    there.chmod(0o640)
    for path in (made, there):
        assert FileSink(path).send(GAUGES) == Reply(Outcome.ACCEPTED)
    assert [path.stat().st_mode & 0o777 for path in (made, there)] == [0o600, 0o640]


@pytest.mark.parametrize("place", ["a folder", "nowhere"])
def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path, place: str) -> None:
    """What could not be written stays owed; the message says which file and why."""
    path = tmp_path if place == "a folder" else tmp_path / "nowhere" / "otlp.jsonl"
    reply = FileSink(path).send(GAUGES)
    assert reply.outcome is Outcome.RETRY
    assert reply.message.startswith(f"cannot write {path}: ")


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    """After a kill or a full disk in the middle of a line the next request stands on a line of its own."""
    path = tmp_path / "otlp.jsonl"
    path.write_text('{"resourceMetrics":[{"resou')
    FileSink(path).send(GAUGES)
    FileSink(path).send(GAUGES)
    _, *whole = path.read_text().splitlines()
    assert [json_format.Parse(line, ExportMetricsServiceRequest()).ByteSize() for line in whole] == [
        len(GAUGES.data)
    ] * 2


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A line that the disk has no room for is not accepted; once there is room, it comes whole."""
    path = tmp_path / "otlp.jsonl"
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from exporter.otlp.encode import Body; from exporter.otlp.local_sinks import FileSink\n"
        "sink, body = FileSink(Path(sys.argv[1])), Body(bytes.fromhex(sys.argv[2]), 4)\n"
        "print(sink.send(body).outcome.name)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1]).stat().st_size + 100, -1))\n"
        "print(sink.send(body).outcome.name)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "print(sink.send(body).outcome.name)\n"
    )
    done = ended([sys.executable, "-c", script, str(path), GAUGES.data.hex()], {}, tmp_path)
    assert done.stdout.split() == ["ACCEPTED", "RETRY", "ACCEPTED"], done.stderr
    parsed = []
    for line in path.read_text().splitlines():
        try:
            parsed.append(json_format.Parse(line, ExportMetricsServiceRequest()))
        except json_format.ParseError:
            continue
    assert [request.SerializeToString() for request in parsed] == [GAUGES.data] * 2


def test_the_console_shows_a_line_a_point() -> None:
    """A heading for each resource; then name, value with unit, and attributes; nothing is refused."""
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    assert sink.send(GAUGES) == Reply(Outcome.ACCEPTED)
    assert sink.send(histogram()) == Reply(Outcome.ACCEPTED)
    sink.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "# service.name=Ünïcode “app”"
    assert len(lines) == 1 + 4 + 1 + 1
    assert lines[2].split() == ["08:00:00", "appstore.launch.time", "1", "s", "number=1"]
    assert lines[-1].split() == [
        "08:00:00",
        "appstore.launch.time.by_device",
        "n=2",
        "mean=1",
        "s",
        "device=all_iphones",
    ]
    assert not stream.closed


def test_an_empty_request_shows_nothing(tmp_path: Path) -> None:
    """A request without points is accepted by each sink."""
    stream: Any = io.StringIO()
    assert ConsoleSink(stream).send(Body(b"", 0)).outcome is Outcome.ACCEPTED
    assert FileSink(tmp_path / "f").send(Body(b"", 0)).outcome is Outcome.ACCEPTED
    assert stream.getvalue() == ""
