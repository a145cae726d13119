from __future__ import annotations

import inspect
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads import diagnostics, insights, metrics, overview, reader
from exporter.convert.catalogue import (
    APPLE_METRICS,
    ATTRIBUTES,
    COMPANIONS,
    DIAGNOSTIC_METRICS,
    ERROR_MARGIN,
    EVENTS,
    INSIGHT_METRICS,
    LEFT_OUT,
    OWN_METRICS,
    describe,
    metric_name,
    worse_direction,
)

LOG_ONLY = {"os_build", "architecture"}
NAME = re.compile(r"appstore\.[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


@pytest.mark.parametrize(
    ("category", "identifier", "name"),
    [
        ("LAUNCH", "launchTime", "appstore.launch.time"),
        ("HANG", "hangRate", "appstore.hang.rate"),
        ("MEMORY", "peakMemory", "appstore.memory.peak_memory"),
        ("MEMORY", "memoryAtSuspension", "appstore.memory.at_suspension"),
        ("DISK", "diskWrites", "appstore.disk.writes"),
        ("BATTERY", "batteryUsage", "appstore.battery.usage"),
        ("BATTERY", "onScreen", "appstore.battery.on_screen"),
        ("BATTERY", "battery", "appstore.battery.battery"),
        ("TERMINATION", "onScreen", "appstore.termination.on_screen"),
        ("ANIMATION", "scrollHitchRate", "appstore.animation.scroll_hitch_rate"),
        ("GPU_TIME", "gpuTimePerFrame", "appstore.gpu_time.per_frame"),
        ("LAUNCH", "launcher", "appstore.launch.launcher"),
        ("STORAGE", "storage3D", "appstore.storage.x_3_d"),
        ("NETWORK", "URLLoadTime", "appstore.network.url_load_time"),
        ("2D", "fps-60.max", "appstore.x_2_d.fps_60_max"),
        ("größe", "日本", "appstore.gr_e.unknown"),
        ("", "", "appstore.unknown.unknown"),
        ("x" * 200, "y" * 200, "appstore." + "x" * 70 + "." + "y" * 70),
    ],
)
def test_names_follow_one_rule(category: str, identifier: str, name: str) -> None:
    """A name is the category and the identifier in snake case, a leading category word dropped."""
    assert metric_name(category, identifier) == name


@settings(deadline=None, max_examples=400)
@given(
    st.text(max_size=200) | st.text("aB1_", max_size=200),
    st.text(max_size=200) | st.text("aB1_", max_size=200),
)
def test_each_name_is_valid_everywhere(category: str, identifier: str) -> None:
    """Whatever Apple calls a metric, its name has two parts of its own and fits each back end's limit."""
    name = metric_name(category, identifier)
    assert NAME.fullmatch(name)
    assert len(name) <= 150
    assert not name.endswith("_")
    assert metric_name.__wrapped__(category, identifier) == name


def test_no_two_metrics_share_a_name() -> None:
    """Names in the catalogue are unique, companions and own metrics included."""
    names = Counter(metric.name for metric in APPLE_METRICS)
    names += Counter(f"{metric.name}.{item.suffix}" for metric in APPLE_METRICS for item in COMPANIONS)
    names += Counter(metric.name for metric in (*OWN_METRICS, *INSIGHT_METRICS, *DIAGNOSTIC_METRICS))
    names += Counter(event.name for event in EVENTS)
    assert names.most_common(1)[0][1] == 1


def test_metrics_are_described() -> None:
    """Each listed metric has its own description; one that is not listed says where it comes from."""
    for metric in APPLE_METRICS:
        assert describe(metric.category, metric.identifier) == metric.description
    assert describe("STORAGE", "appSize") == "STORAGE appSize, as App Store Connect reports it"
    assert describe("LAUNCH", "launchTime", ERROR_MARGIN) == ERROR_MARGIN.description


def test_the_direction_that_is_worse_is_known_for_listed_metrics() -> None:
    """Of all that Apple documents, more is worse; of what is not listed nobody knows."""
    assert {worse_direction(metric.category, metric.identifier) for metric in APPLE_METRICS} == {"higher"}
    assert worse_direction("STORAGE", "appSize") is None
    assert worse_direction("LAUNCH", "hangRate") is None


def test_all_attributes_of_metrics_are_explained() -> None:
    """An attribute that a companion or another metric bears is in the list of attributes."""
    borne = {name for companion in COMPANIONS for name in companion.attributes}
    borne |= {name for metric in (*INSIGHT_METRICS, *DIAGNOSTIC_METRICS) for name in metric.attributes}
    assert borne <= set(ATTRIBUTES)


def test_each_tag_is_borne_by_something() -> None:
    """No tag is explained that nothing bears: those of Apple's metrics, of a build, and of the others."""
    borne = {"device", "device_name", "platform", "version", "percentile", "build"}
    borne |= {name for companion in COMPANIONS for name in companion.attributes}
    borne |= {name for metric in (*INSIGHT_METRICS, *DIAGNOSTIC_METRICS) for name in metric.attributes}
    assert set(ATTRIBUTES) == borne


def test_attributes_of_events_are_tags_or_have_a_namespace() -> None:
    """An event's attribute is a tag of the metrics, a semantic convention, or in a namespace of ours."""
    for event in EVENTS:
        for name, meaning in event.attributes.items():
            assert meaning
            assert name in ATTRIBUTES or name.startswith((f"{event.name}.", "code.")) or name in LOG_ONLY


def test_each_reason_of_the_reader_is_explained() -> None:
    """The readers leave nothing out for a reason that the catalogue does not explain."""
    readers = (metrics, insights, diagnostics, overview, reader)
    source = "".join(map(inspect.getsource, readers))
    reasons = set(re.findall(r'"((?:no|not|unknown)_[a-z_]+|malformed|duplicate)"', source))
    assert (
        {"no_value", "not_a_number", "malformed", "unknown_goal", "no_signature"} < reasons <= set(LEFT_OUT)
    )
