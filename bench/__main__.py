"""`make bench`: prints a table; every ratio is of medians measured in turn in this one run.

python -m bench [--quick]
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.payload import POINTS_PER_APP, payload
from bench.plain import plain_body
from bench.requests import request_counts
from bench.work import NOW, app_resource, converted
from exporter.convert.catalogue import COMPANIONS
from exporter.sandbox import Sandbox

_GOALS = {"poll": 3.0, "heartbeat": 10.0}
# Ours; the plain path carries over what Apple sent.
_COMPUTED = tuple(f".{companion.suffix}" for companion in COMPANIONS if companion.computed)
_LOGS = {
    "logs": "ordinary logs, ten to a document",
    "deep_log": "one call stack 10,000 frames deep",
    "wide_log": "one call-stack tree of 100,000 frames",
}
_SAY = {
    "plain": "plain path: json.loads, SDK classes, encode_metrics, gzip",
    "poll": "poll: payload → gzipped OTLP",
    "stored": "poll, through the state file and a delivery",
    "heartbeat": "heartbeat: stored gauges → gzipped OTLP",
}


def main() -> None:
    sizes = (1, 10) if "--quick" in sys.argv else (1, 10, 100)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}\n")
    _same_points()
    _logs()
    _requests()
    for apps in sizes:
        _compare(apps, runs=5 if apps < 100 else 3)
    _start_up()


def _same_points() -> None:
    """The two paths are comparable only if they make the same number of points of the same payload."""
    body = payload(0)
    plain = plain_body(body, app_resource(0), NOW)[1]
    gauges = converted(body).gauges
    ours = sum(len(metric.data.data_points) for metric in gauges if not metric.name.endswith(_COMPUTED))
    if plain != ours:
        raise SystemExit(f"the plain path makes {plain} points of the payload, ours {ours}")


def _logs() -> None:
    """Diagnostic logs: document → identity, fingerprint, rendered stack, event, gzipped OTLP."""
    print("diagnostic logs: document → event with rendered stack, gzipped OTLP (median of 5 runs)")
    for name, what in _LOGS.items():
        measured = [_measure(name, 200 if name == "logs" else 1) for _ in range(5)]
        seconds = statistics.median(result["seconds"] for result in measured)
        logs, peak = measured[0]["points"], max(result["peak_mb"] for result in measured)
        print(f"  {what:<58} {logs / seconds:>10,.1f} logs/s {seconds:>9.2f} s {peak:>9.0f} MB peak")
    print()


def _requests() -> None:
    """What a poll of the sandbox's apps costs, beside the crawl that fetches everything every time."""
    counts = request_counts()
    print("requests to App Store Connect for one poll of the sandbox's three apps, newest 3 versions:")
    print(f"  the plain crawl, each time                    {counts.plain:>5}")
    for what, count in (
        ("the first poll", counts.first),
        ("a poll when nothing changed at Apple's", counts.steady),
        ("a poll the day after, when something did", counts.next_day),
    ):
        print(f"  {what:<45} {count:>5}   {count / counts.plain:>6.1%} of the plain crawl")
    print()


def _compare(apps: int, runs: int) -> None:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in _SAY}
    for _ in range(runs):
        for name in _SAY:  # in turn, so that a machine that slows down does so for all
            results[name].append(_measure(name, apps))
    print(
        f"{apps} app(s) of about {POINTS_PER_APP} points: {int(results['plain'][0]['points'])} points, "
        f"median of {runs} runs"
    )
    base = statistics.median(result["seconds"] for result in results["plain"])
    for name, measured in results.items():
        seconds = statistics.median(result["seconds"] for result in measured)
        points = measured[0]["points"]
        peak = max(result["peak_mb"] for result in measured)
        ratio = f"  {base / seconds:5.1f} x plain" if name != "plain" else ""
        goal = f" (to reach: {_GOALS[name]:g})" if name in _GOALS else ""
        print(
            f"  {_SAY[name]:<58} {points / seconds:>10,.0f} points/s {seconds / points * 1e6:>7.2f} µs/point"
            f" {peak:>5.0f} MB peak{ratio}{goal}"
        )
    print()


def _measure(name: str, apps: int) -> dict[str, float]:
    output = subprocess.run(
        [sys.executable, "-m", "bench.work", name, str(apps)], check=True, capture_output=True, text=True
    ).stdout
    result: dict[str, float] = json.loads(output)
    return result


def _start_up() -> None:
    """From starting the process to its first request, and its memory when nothing happens any more."""
    starts, memory = [], []
    for _ in range(3):
        with Sandbox() as sandbox, tempfile.TemporaryDirectory() as folder:
            environ = {**os.environ, **sandbox.environ(), "PERFPOWER_STATE": str(Path(folder) / "state.db")}
            environ |= {"PERFPOWER__HTTP__LISTEN": "127.0.0.1:0", "PERFPOWER__LOG__LEVEL": "error"}
            started = time.time()
            process = subprocess.Popen([sys.executable, "-m", "exporter", "run"], env=environ)
            try:
                while not sandbox.appstore.requests and time.time() - started < 30:
                    time.sleep(0.01)
                starts.append(sandbox.appstore.requests[0].at - started)
                time.sleep(5)
                memory.append(_resident_mb(process.pid))
            finally:
                process.terminate()
                process.wait()
    print(f"start-up to first request: {statistics.median(starts):.2f} s (to reach: below 1)")
    if all(memory):
        print(
            f"idle memory 5 s after the first poll: {statistics.median(memory):.0f} MB (to reach: below 90)"
        )


def _resident_mb(pid: int) -> float:
    """Resident memory where /proc tells it (Linux), else 0."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
